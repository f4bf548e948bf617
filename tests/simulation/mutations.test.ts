/** The simulation bites: with one guard of the protocol switched off, some history soon goes wrong. `make mutate` does all of them. */
import { readFileSync } from 'node:fs';
import { describe, expect, test } from '@jest/globals';
import { catchMutation } from './catching.ts';
import { mutations } from './mutations.ts';

describe('a guard switched off', () => {
  const short = mutations.filter((mutation) => mutation.short);

  test('each change fits in exactly one place', () => {
    const misfits = mutations.flatMap(({ name, edits }) =>
      edits
        .filter(([file, from]) => readFileSync(new URL(`../../${file}`, import.meta.url), 'utf8').split(from).length !== 2)
        .map(([file]) => `${name}: ${file}`),
    );
    expect(misfits).toEqual([]);
  });

  test.each(short)(
    '$name is noticed',
    async (mutation) => {
      expect(await catchMutation(mutation)).not.toBeNull();
    },
    120_000,
  );
});
