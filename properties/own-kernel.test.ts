/**
 * What concerns the kernel, on a host that has one of its own: a fake connection whose /etc and /sys/module are a folder
 * of this machine (the mount point is the machine's own /tmp), and whose programs that would change a kernel are noted and believed.
 */
import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import type { Connection, RunResult } from '../connections/connection.ts';
import { openLocal } from '../connections/local.ts';
import { toyDefinition } from './_toy.ts';
import { unapplied } from './combinators.ts';
import { whenContained } from './conditions.ts';
import { checkReport, deploy } from './deploy.ts';
import * as hostname from './hostname.ts';
import * as kernel from './kernel.ts';
import * as mount from './mount.ts';
import { planHost } from './plan.ts';
import type { PropertyApplication } from './property.ts';
import * as reboot from './reboot.ts';
import * as swap from './swap.ts';
import * as sysctl from './sysctl.ts';

const QUICK = { timeout: 20_000 };
const ALONE = { memory: 'none' } as const;

const folders: string[] = [];
after(() => folders.forEach((folder) => rmSync(folder, { recursive: true, force: true })));

/** A host with a kernel of its own; `ran` has what would have changed it. */
interface LiveHost {
  readonly connection: Connection;
  readonly ran: string[];
  readonly fstab: () => string;
}

function liveHost(fstab: string): LiveHost {
  const folder = mkdtempSync(join(tmpdir(), 'buildos-live-'));
  folders.push(folder);
  mkdirSync(join(folder, 'etc'));
  mkdirSync(join(folder, 'sys/module'), { recursive: true });
  writeFileSync(join(folder, 'etc/fstab'), fstab);
  const local = openLocal();
  const ran: string[] = [];
  const swaps = new Set<string>();
  const mounts = new Set<string>();
  let name = 'old';
  let due = false;
  const answer = (status: number, stdout = ''): RunResult => ({
    status,
    stdout: Buffer.from(stdout),
    stderr: new Uint8Array(),
  });
  /** Programs that look at the kernel; others change it, and are noted. */
  const look = (program: string, words: readonly string[]): RunResult | undefined => {
    if (program === 'findfs') return words[0] === 'LABEL=swap' ? answer(0, '/dev/vdb\n') : answer(1);
    if (program === 'swapon' && words[0] === '--show=NAME') return answer(0, [...swaps].join('\n'));
    if (program === 'mountpoint') return answer(mounts.has(words.at(-1) ?? '') ? 0 : 32);
    if (program === 'uname') return answer(0, `${name}\n`);
    if (program === 'systemctl' && words[0] === 'is-active') return answer(due ? 0 : 3);
    return undefined;
  };
  const change: Readonly<Record<string, (word: string) => unknown>> = {
    swapon: (word) => swaps.add(word === 'LABEL=swap' ? '/dev/vdb' : word),
    swapoff: () => swaps.clear(),
    mount: (word) => mounts.add(word),
    umount: (word) => mounts.delete(word),
    hostname: (word) => (name = word),
    modprobe: (word) => mkdirSync(join(folder, 'sys/module', word)),
    sysctl: () => undefined,
    systemctl: (word) => (due = word !== 'buildos-reboot.timer' && due),
    'systemd-run': () => (due = true),
    mkdir: () => undefined,
  };
  const inFolder = (text: string): string =>
    text.replaceAll(
      /(^|[\s'"])(\/(etc|sys\/module)\/)/g,
      (_, before: string, path: string) => `${before}${folder}${path}`,
    );
  const run: Connection['run'] = async (argv, options = {}) => {
    const [program = '', ...words] = argv;
    if (argv.join(' ') === 'test -d /run/systemd/system') return answer(0);
    if (program === 'sh') {
      if (argv[2]?.includes('/run/systemd/container') === true) return answer(1);
      const input = typeof options.input === 'string' ? { input: inFolder(options.input) } : {};
      const result = await local.run(argv.map(inFolder), { ...options, ...input });
      return {
        ...result,
        stdout: Buffer.from(Buffer.from(result.stdout).toString('latin1').replaceAll(folder, ''), 'latin1'),
      };
    }
    const looked = look(program, words);
    if (looked !== undefined) return looked;
    ran.push(argv.join(' '));
    change[program]?.(words.at(-1) ?? '');
    return answer(0);
  };
  const readFile: Connection['readFile'] = async (path) => await local.readFile(inFolder(path));
  return { connection: { ...local, run, readFile }, ran, fstab: () => readFileSync(join(folder, 'etc/fstab'), 'utf8') };
}

const BEFORE = 'LABEL=root / ext4 defaults 0 1\n';

/** What is applied, the commands, the line in fstab, the commands that take it back. */
const ROWS: readonly (readonly [
  make: PropertyApplication,
  apply: readonly string[],
  line: string,
  unapply: readonly string[],
])[] = [
  [
    swap.on('LABEL=swap'),
    ['systemctl daemon-reload', 'swapon -- LABEL=swap'],
    'LABEL=swap none swap sw 0 0\n',
    ['swapoff -- LABEL=swap', 'systemctl daemon-reload'],
  ],
  [
    mount.at('/tmp', { device: 'tmpfs', type: 'tmpfs' }),
    ['systemctl daemon-reload', 'mkdir -p -- /tmp', 'mount -- /tmp'],
    'tmpfs /tmp tmpfs defaults 0 0\n',
    ['umount -- /tmp', 'systemctl daemon-reload'],
  ],
  [kernel.loaded(['dummy']), ['modprobe --all -- dummy'], '', []],
  [hostname.now('new'), ['hostname new'], '', []],
  [whenContained(hostname.now('inside'), hostname.now('outside')), ['hostname outside'], '', []],
];

for (const [make, apply, line, unapply] of ROWS) {
  test(`a kernel of its own: ${make.p} ${JSON.stringify(make.a)}`, QUICK, async () => {
    const host = liveHost(BEFORE);
    const plan = await planHost(toyDefinition(make), host.connection, ALONE);
    assert.equal(plan.outcome, 'pending');
    assert.deepEqual([host.ran, host.fstab()], [[], BEFORE]);
    const run = async (application: PropertyApplication): Promise<string> => {
      host.ran.length = 0;
      const report = await deploy(toyDefinition(application), host.connection, ALONE);
      checkReport(report);
      return report.outcome;
    };
    assert.equal(await run(make), 'changed');
    assert.deepEqual([host.ran, host.fstab()], [apply, BEFORE + line]);
    assert.equal(await run(make), 'ok');
    assert.deepEqual(host.ran, []);
    assert.equal(await run(unapplied(make)), unapply.length > 0 ? 'changed' : 'ok');
    assert.deepEqual([host.ran, host.fstab()], [unapply, BEFORE]);
    assert.equal(await run(unapplied(make)), 'ok');
  });
}

test(
  'a kernel of its own: other options are taken at once, another device takes the place of the first',
  QUICK,
  async () => {
    const host = liveHost(BEFORE);
    const steps = [
      {
        mount: { device: 'tmpfs', type: 'tmpfs' },
        ran: ['systemctl daemon-reload', 'mkdir -p -- /tmp', 'mount -- /tmp'],
      },
      {
        mount: { device: 'tmpfs', type: 'tmpfs', options: ['size=1m'] },
        ran: ['systemctl daemon-reload', 'mount -o remount -- /tmp', 'mkdir -p -- /tmp'],
      },
      {
        mount: { device: 'LABEL=tmp' },
        ran: ['umount -- /tmp', 'systemctl daemon-reload', 'mkdir -p -- /tmp', 'mount -- /tmp'],
      },
    ];
    for (const { mount: options, ran } of steps) {
      host.ran.length = 0;
      checkReport(await deploy(toyDefinition(mount.at('/tmp', options)), host.connection, ALONE));
      assert.deepEqual(host.ran, ran);
    }
  },
);

test('a kernel of its own: settings are loaded, a reboot is one however often it is asked for', QUICK, async () => {
  const host = liveHost(BEFORE);
  const twice = [reboot.atEnd(), sysctl.loaded('/etc/sysctl.d/x.conf'), reboot.atEnd()];
  const folder = mkdtempSync(join(tmpdir(), 'buildos-live-'));
  folders.push(folder);
  checkReport(await deploy(toyDefinition(...twice), host.connection, { memory: 'none', state: folder }));
  assert.deepEqual(host.ran, [
    'sysctl --quiet --load /etc/sysctl.d/x.conf',
    'systemd-run --quiet --collect --unit=buildos-reboot --on-active=5 --timer-property=AccuracySec=100ms systemctl --no-block reboot',
  ]);
});
