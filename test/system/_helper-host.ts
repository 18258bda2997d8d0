/**
 * A host for the helper's tests: real btrfs, links, namespaces and firewall, inside a network namespace and a folder of
 * the test's; in the place of systemd, units that are files. So what the "systemd" of the test knows survives the
 * helper, as the real one's does.
 */
import { existsSync, mkdirSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Connection, RunOptions, RunResult } from '../../connections/connection.ts';
import { openLocal } from '../../connections/local.ts';
import { HOST_LAYOUT } from '../../helper/names.ts';
import type { Host } from '../../helper/perform.ts';

/** Where the test's host is. */
export interface HostOptions {
  /** holds `machines/` (volumes) and `units/` */
  readonly folder: string;
  /** the network namespace that plays the host's */
  readonly netns: string;
  readonly log?: (line: string) => void;
  /** programs that the host lacks, or how calls of them begin that fail */
  readonly lacks?: readonly string[];
  /** the n-th program never starts; {@link HANGS} is logged */
  readonly hangAt?: number;
}

/** What is logged when the helper hangs. */
export const HANGS = 'hangs here';

/** Makes the host; nothing is held. */
export function openHost(options: HostOptions): Host {
  const local = openLocal();
  const log = options.log ?? (() => {});
  let count = 0;
  const run = async (argv: readonly string[], runOptions?: RunOptions): Promise<RunResult> => {
    count += 1;
    if (count === options.hangAt) {
      log(HANGS);
      await sleep(60_000);
    }
    const said = runSystemd(argv, join(options.folder, 'units'));
    if (said !== undefined) return { status: 0, stdout: Buffer.from(said), stderr: Buffer.alloc(0) };
    const words = `${argv.join(' ')} `;
    if (options.lacks?.some((call) => words.startsWith(`${call} `)) === true)
      return local.run([`/nonexistent/${argv[0]}`]);
    // Not `ip netns exec`: it has a mount namespace of its own, in which a new network namespace's file would be lost.
    return local.run(['nsenter', `--net=/run/netns/${options.netns}`, '--', ...argv], runOptions);
  };
  const on: Connection = { ...local, run };
  return { on, log, layout: { ...HOST_LAYOUT, machines: join(options.folder, 'machines') } };
}

/** Plays systemctl and systemd-run; a unit is a file that holds its ActiveState. */
function runSystemd(argv: readonly string[], units: string): string | undefined {
  mkdirSync(units, { recursive: true });
  const [program, ...words] = argv;
  const last = words.at(-1) ?? '';
  const state = (unit: string): string | undefined =>
    existsSync(join(units, unit)) ? readFileSync(join(units, unit), 'utf8') : undefined;
  if (program === 'journalctl') return '';
  if (program === 'systemd-run') {
    const unit = words.find((word) => word.startsWith('--unit='))?.slice(7) ?? '';
    if (state(unit) !== undefined) throw new Error(`Unit ${unit} was already loaded`);
    writeFileSync(join(units, unit), 'active');
    return '';
  }
  if (program !== 'systemctl') return undefined;
  if (words.includes('show')) {
    const active = state(last);
    const load = active === undefined ? 'not-found' : 'loaded';
    return `LoadState=${load}\nActiveState=${active ?? 'inactive'}\nSubState=running\nResult=success\nExecMainStatus=0\n`;
  }
  if (words.includes('list-units')) {
    return readdirSync(units)
      .map((unit) => `${unit} loaded ${state(unit) ?? ''} running Machine\n`)
      .join('');
  }
  if (words.includes('kill') && state(last) === 'active') writeFileSync(join(units, last), 'failed');
  if (words.includes('reset-failed')) rmSync(join(units, last), { force: true });
  return '';
}
