/**
 * Brokers and Redis in containers, by testcontainers, for machines with a Docker engine. The image is made here, of Debian's packages, so that no
 * image registry is needed; the broker's jars are mounted, since each checkout has its own. Containers share the host's network: the addresses that
 * a broker advertises hold on either side.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { GenericContainer, getContainerRuntimeClient, type StartedTestContainer } from 'testcontainers';
import { answers, installKafka, type KafkaOptions, prepareKafka, run } from '../../infra/local-kafka.ts';
import { pings, prepareRedis, type RedisOptions } from '../../infra/local-redis.ts';
import type { Backends, RunningBackend } from '../../infra/stack.ts';

const image = 'flowledger-debian:bookworm';
const packages = 'openjdk-17-jre-headless,redis-server';

// The reaper's image cannot be had without a registry; what is started here is stopped here.
process.env['TESTCONTAINERS_RYUK_DISABLED'] = 'true';

/** Whether a Docker engine answers. */
export async function engineAnswers(): Promise<boolean> {
  return getContainerRuntimeClient().then(
    () => true,
    () => false,
  );
}

async function docker(...args: readonly string[]): Promise<string> {
  const { code, output } = await run('docker', args, () => {});
  if (code !== 0) throw new Error(`docker ${args[0]} ended with ${code}: ${output.slice(-500)}`);
  return output.trim();
}

async function hasImage(name: string): Promise<boolean> {
  return docker('image', 'inspect', name).then(
    () => true,
    () => false,
  );
}

/** Makes the image with Java and Redis where the engine does not have it. @throws Error naming what is missing */
async function requireImage(say: (line: string) => void): Promise<void> {
  if (await hasImage(image)) return;
  const dir = mkdtempSync(join(tmpdir(), 'flowledger-image-'));
  try {
    await importImage(dir, say);
  } finally {
    rmSync(dir, { recursive: true, force: true });
  }
}

async function importImage(dir: string, say: (line: string) => void): Promise<void> {
  say('making an image with debootstrap; some minutes, once');
  const root = join(dir, 'root');
  const made = await run('debootstrap', ['--variant=minbase', `--include=${packages}`, 'bookworm', root], () => {}).catch(() => null);
  if (!made) throw new Error(`neither an image ${image} nor debootstrap is here (Debian, Ubuntu: apt-get install debootstrap)`);
  if (made.code !== 0) throw new Error(`debootstrap ended with ${made.code} (it takes root): ${made.output.slice(-500)}`);
  const archive = join(dir, 'root.tar');
  const packed = await run('tar', ['-C', root, '-cf', archive, '.'], () => {});
  if (packed.code !== 0) throw new Error(`tar ended with ${packed.code}: ${packed.output.slice(-500)}`);
  await docker('import', archive, image);
}

export class Containers implements Backends {
  readonly #say: (line: string) => void;
  /** One making of the image for all that start at once. */
  #image: Promise<void> | null = null;

  constructor(say: (line: string) => void = () => {}) {
    this.#say = say;
  }

  async startKafka(options: KafkaOptions): Promise<RunningBackend> {
    const libs = await installKafka(options.progress);
    const { command, port } = await prepareKafka(options);
    return this.#start([options.dir, libs], ['java', ...command], () => answers({ host: '127.0.0.1', port }, () => false));
  }

  async startRedis(options: RedisOptions): Promise<RunningBackend> {
    const { settings, port } = await prepareRedis(options);
    return this.#start([options.dir], ['redis-server', settings], () => pings('127.0.0.1', port, () => false));
  }

  /** With its directories at the same places as here, so that they are found there again; it works in the first. */
  async #start(directories: readonly [string, ...string[]], command: string[], answering: () => Promise<boolean>): Promise<RunningBackend> {
    this.#image ??= requireImage(this.#say);
    await this.#image;
    const container = await new GenericContainer(image)
      .withNetworkMode('host')
      .withBindMounts(directories.map((directory) => ({ source: directory, target: directory })))
      .withWorkingDir(directories[0])
      .withCommand(command)
      .start();
    const id = container.getId();
    if (!(await answering())) throw new Error(`container ${id} does not answer: ${await docker('logs', '--tail', '20', id)}`);
    return running(container, Number(await docker('inspect', '-f', '{{.State.Pid}}', id)));
  }
}

function running(container: StartedTestContainer, pid: number): RunningBackend {
  const id = container.getId();
  const isFrozen = async () => (await docker('inspect', '-f', '{{.State.Status}}', id).catch(() => 'gone')) === 'paused';
  const thaw = async () => void (await docker('unpause', id));
  return {
    pid,
    freezer: { freeze: async () => void (await docker('pause', id)), thaw, isFrozen },
    stop: async () => {
      if (await isFrozen()) await thaw();
      await container.stop({ timeout: 20_000 });
    },
    kill: async () => {
      if (await isFrozen()) await thaw();
      await docker('kill', id);
      await container.stop();
    },
  };
}
