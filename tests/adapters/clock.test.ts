import { expect, test } from '@jest/globals';
import { ForwardTime } from '../../adapters/clock.ts';

class Scene {
  wallMs = 1_000_000;
  elapsedMs = 50;
  readonly time = new ForwardTime(
    () => this.wallMs,
    () => this.elapsedMs,
  );

  later(ms: number): number {
    this.wallMs += ms;
    this.elapsedMs += ms;
    return this.time.now();
  }
}

test('the time is that of the system', () => {
  const scene = new Scene();
  expect([scene.later(0), scene.later(10), scene.later(7)]).toEqual([1_000_000, 1_000_010, 1_000_017]);
});

test('a clock that is set back is met at half the speed; what is due every so often is done meanwhile', () => {
  const scene = new Scene();
  scene.later(0);
  scene.wallMs -= 1000;
  expect(scene.later(100)).toBe(1_000_050);
  expect(scene.later(900)).toBe(1_000_500);
  for (let i = 0; i < 10; i++) scene.later(100);
  expect(scene.time.now()).toBe(scene.wallMs);
  expect(scene.later(100)).toBe(1_001_100);
});

test('a clock that is set ahead is followed', () => {
  const scene = new Scene();
  scene.later(0);
  scene.wallMs += 7_200_000;
  expect(scene.later(1)).toBe(8_200_001);
});
