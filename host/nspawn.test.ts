import assert from 'node:assert/strict';
import { test } from 'node:test';
import { KEPT_CAPABILITIES, nspawnArgv } from './nspawn.ts';

const ARGV = nspawnArgv({
  name: 'a-1',
  directory: '/m/a-1/root',
  readOnlyBinds: ['/usr/lib/buildos', '/odd:path'],
  resolvConf: 'replace-host',
  environment: {},
  command: ['/bin/true', '--help'],
});

test('nspawnArgv() keeps words of the command from being options, and colons from parting a path', () => {
  assert.deepEqual(ARGV.slice(-3), ['--', '/bin/true', '--help']);
  assert.ok(ARGV.includes('--bind-ro=/odd\\:path'));
});

test('nspawnArgv() drops all that nspawn would leave but for what is kept', () => {
  // systemd-nspawn(1), --capability=, systemd 257; NET_ADMIN only with --private-network.
  const defaults =
    'AUDIT_CONTROL AUDIT_WRITE CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID IPC_OWNER KILL LEASE LINUX_IMMUTABLE ' +
    'MKNOD NET_BIND_SERVICE NET_BROADCAST NET_RAW SETFCAP SETGID SETPCAP SETUID SYS_ADMIN SYS_BOOT SYS_CHROOT SYS_NICE ' +
    'SYS_PTRACE SYS_RESOURCE SYS_TTY_CONFIG';
  const dropped =
    ARGV.find((word) => word.startsWith('--drop-capability='))
      ?.slice(18)
      .split(',') ?? [];
  const left = defaults
    .split(' ')
    .map((name) => `CAP_${name}`)
    .filter((name) => !dropped.includes(name));
  assert.deepEqual(left, KEPT_CAPABILITIES);
});
