/** For the tests of this room: a host that is a map in memory, and properties that look at it and change it. */
import { type Connection, type RunOptions, type RunResult, CommandError } from '../connections/connection.ts';
import type { HostDefinition } from './host-definition.ts';
import { type PropertyApplication, defineProperty } from './property.ts';
import { declareReadOnly } from './read-only.ts';

const get = declareReadOnly('get');

/** A host in memory. `ran` has the commands in order; `get KEY`, `set KEY VALUE`, `delete KEY` work on the map. */
export interface ToyHost {
  readonly values: Map<string, string>;
  readonly ran: string[];
  readonly connection: Connection;
}

/** Makes a host in memory. Setting a key named `broken` fails; `slow` waits for the abort. */
export function toyHost(initial: Readonly<Record<string, string>> = {}, kind: Connection['kind'] = 'posix'): ToyHost {
  const values = new Map(Object.entries(initial));
  const ran: string[] = [];
  const nothing = new Uint8Array();
  const answer = (status: number, stdout = ''): RunResult => ({ status, stdout: Buffer.from(stdout), stderr: nothing });
  const run = async (argv: readonly string[], options: RunOptions = {}): Promise<RunResult> => {
    ran.push(argv.join(' '));
    const [verb, key = '', value = ''] = argv;
    if (key === 'slow') {
      await new Promise((resolve) => {
        options.signal?.addEventListener('abort', resolve, { once: true });
      });
      throw new CommandError({ argv, failure: 'aborted', status: 143, stdout: nothing, stderr: nothing });
    }
    if (key === 'broken' && verb !== 'get') {
      throw new CommandError({ argv, failure: 'status', status: 1, stdout: nothing, stderr: Buffer.from('it broke') });
    }
    if (verb === 'set') values.set(key, value);
    if (verb === 'delete') values.delete(key);
    return answer(0, values.get(key) ?? '');
  };
  const refuse = async (): Promise<never> => {
    throw new Error('A toy host has no files');
  };
  return {
    values,
    ran,
    connection: {
      chain: [['local'], ['toy']],
      kind,
      run,
      readFile: refuse,
      writeFile: refuse,
      async [Symbol.asyncDispose]() {},
    },
  };
}

/** A key has a value. */
export const has: (key: string, value: string) => PropertyApplication = defineProperty<[key: string, value: string]>({
  id: 'toy.has',
  kind: 'posix',
  describe: (key, value) => `${key}=${value}`,
  hostattrs: (_known, key) => ({ packages: [key] }),
  check: async (host, key, value) => Buffer.from((await host.run(get(key))).stdout).toString() === value,
  plan: (_host, key, value) => [`set ${key} to ${value}`],
  apply: async (host, key, value) => void (await host.run(['set', key, value])),
  checkUnapplied: async (host, key) => (await host.run(get(key))).stdout.length === 0,
  unapply: async (host, key) => void (await host.run(['delete', key])),
});

/** A key is set, without a look before and without a way back. */
export const poke: (key: string) => PropertyApplication = defineProperty<[key: string]>({
  id: 'toy.poke',
  kind: 'posix',
  describe: (key) => `poke ${key}`,
  apply: async (host, key) => void (await host.run(['set', key, 'poked'])),
});

/** Nothing but a static fact. */
export const note: (name: string) => PropertyApplication = defineProperty<[name: string]>({
  id: 'toy.note',
  kind: 'posix',
  describe: (name) => `note ${name}`,
  hostattrs: (_known, name) => ({ kernelOptions: [name] }),
});

/** Needs our JavaScript at the far end. */
export const inProcess: () => PropertyApplication = defineProperty<[]>({
  id: 'toy.inProcess',
  kind: 'native',
  describe: () => 'in process',
  apply: () => 'no-change',
});

/** A host with these properties. */
export function toyDefinition(...properties: PropertyApplication[]): HostDefinition {
  return { name: 'toy', summary: 'a host in memory', base: { distribution: 'debian', suite: 'trixie' }, properties };
}
