/**
 * KVM or TCG, decided by a boot: /dev/kvm may be there and still not run a stock kernel (on para-virtual hosts).
 *
 * The probe boots a kernel without an initrd under KVM. A kernel that comes as far as complaining that it has no root file
 * system has run user-space set-up, interrupts and timers: good enough. That takes a second where it works.
 */
import { access, constants, mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Accelerator } from '../host/qemu.ts';
import { Guest } from './guest.ts';

const PROBE_TIMEOUT_MS = 8000;

/** What the probes of this process found, by machine boot; a machine does not learn KVM while it runs. */
let known: Promise<Accelerator> | undefined;

/**
 * Finds the accelerator to use on this machine; the first call may take some seconds, later ones none.
 *
 * @param kernel - a kernel for x86-64 to probe with
 */
export function findAccelerator(kernel: string): Promise<Accelerator> {
  known ??= probe(kernel);
  return known;
}

async function probe(kernel: string): Promise<Accelerator> {
  try {
    await access('/dev/kvm', constants.R_OK | constants.W_OK);
  } catch {
    return 'tcg';
  }
  // Without the CPU's own virtualisation flags KVM is another hypervisor's substitute; it hangs rather than fails.
  if (!/^flags\s*:.*\b(vmx|svm)\b/m.test(await readFile('/proc/cpuinfo', 'utf8'))) return 'tcg';
  const folder = await mkdtemp(join(tmpdir(), 'buildos-kvm-'));
  try {
    await using guest = await Guest.start({
      name: 'kvm-probe',
      firmware: 'direct',
      accelerator: 'kvm',
      memoryMiB: 256,
      cpus: 1,
      kernel: { file: kernel, append: 'console=ttyS0 panic=-1' },
      folder,
      noReboot: true,
    });
    await guest.waitForLine(/Unable to mount root fs|No working init/, { timeoutMs: PROBE_TIMEOUT_MS });
    return 'kvm';
  } catch {
    return 'tcg';
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

/**
 * Kernel arguments for guests of the lab. Under TCG, hardening against side channels that an emulated CPU does not have, and what
 * else the kernel does at each system call and page, doubles the time of a configure script (200 processes: 7.6 s against 3.8 s).
 */
export function acceleratorArgs(accelerator: Accelerator): readonly string[] {
  if (accelerator !== 'tcg') return [];
  // Without rep_good the kernel clears and copies pages with plain moves: TCG emulates `rep stos` word by word.
  return ['mitigations=off', 'init_on_alloc=0', 'apparmor=0', 'audit=0', 'clearcpuid=rep_good'];
}
