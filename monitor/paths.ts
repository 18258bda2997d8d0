/**
 * Every path the monitor touches, in one value, so that a test or a developer can move all of them under a folder.
 */
import { join } from 'node:path';

/** Where the monitor finds and leaves things; absolute paths. */
export interface Paths {
  /** written by init, see host/host-json.ts */
  readonly hostJson: string;
  readonly helperSocket: string;
  /** served read-only over TFTP */
  readonly tftp: string;
  /** a toolchain's files are in a folder of its name */
  readonly tftpToolchains: string;
  readonly statusJson: string;
  readonly log: string;
  /** bootstrapped toolchains */
  readonly toolchains: string;
  /** installed agents: a link a toolchain, into `.versions/` */
  readonly agents: string;
  /** what each agent says of itself, `<tc>.json` */
  readonly agentStates: string;
  /** while this file exists, agents take no task */
  readonly drain: string;
  /** what has been done since boot, `<tc>.json`; survives the monitor, not the host */
  readonly records: string;
  /** the mount point that may be a disk */
  readonly state: string;
  /** the reboot budget */
  readonly budget: string;
  /** leases of systemd-networkd */
  readonly leases: string;
}

/**
 * The paths under a root folder.
 *
 * @param root - absolute, without a final slash; `''` is the host itself
 */
export function pathsUnder(root: string): Paths {
  const at = (path: string): string => (root === '' ? path : join(root, path));
  return {
    hostJson: at('/run/buildos/host.json'),
    helperSocket: at('/run/buildos/helper.sock'),
    tftp: at('/build/tftp'),
    tftpToolchains: at('/build/tftp/toolchains'),
    statusJson: at('/build/tftp/status.json'),
    log: at('/build/tftp/monitor.log'),
    toolchains: at('/build/toolchains'),
    agents: at('/build/agents'),
    agentStates: at('/run/buildos/agents'),
    drain: at('/run/buildos/monitor/drain'),
    records: at('/run/buildos/monitor/toolchains'),
    state: at('/state'),
    budget: at('/state/monitor/reboots.json'),
    leases: at('/run/systemd/netif/leases'),
  };
}
