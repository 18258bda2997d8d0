/** Performs steps through a connection; it makes no choices. */
import { CommandError, type Connection } from '../connections/connection.ts';
import { deleteSubvolume, snapshotSubvolume } from '../host/btrfs.ts';
import * as ip from '../host/ip.ts';
import { loadRuleset } from '../host/nft.ts';
import * as systemd from '../host/systemd.ts';
import { closePort, openPort, tableRuleset } from './firewall.ts';
import type { Layout } from './names.ts';
import { RefusedError } from './plan.ts';
import { type Step, describe } from './step.ts';

/**
 * Performs steps in order, and stops at the first that fails. Only a port that cannot be closed holds nothing up: what is
 * left of a build has to go, and a machine that gets its address closes it first.
 *
 * @param log - gets a line before each step
 */
export async function run(
  steps: readonly Step[],
  on: Connection,
  layout: Layout,
  log: (line: string) => void,
): Promise<void> {
  for (const step of steps) {
    log(describe(step));
    try {
      await perform(step, on, layout);
    } catch (error) {
      if (!(error instanceof CommandError)) throw error;
      if (step.kind === 'open-port') throw withoutFirewall(step.build, error);
      if (step.kind !== 'close-port') throw error;
      log(`warning: ${error.message}`);
    }
  }
}

/** Fails closed: a machine without it would reach what other machines write, and the host's own services. */
function withoutFirewall(build: string, error: CommandError): RefusedError {
  return new RefusedError(
    `Cannot start build ${build}: the machines' firewall cannot be loaded: ${error.message}`,
    'is the program nft there (package nftables), and does the kernel have nf_tables?',
  );
}

async function perform(step: Step, on: Connection, layout: Layout): Promise<void> {
  switch (step.kind) {
    case 'make-folder':
      // Only root may enter: a job can leave programs in its snapshot that are set-user-ID root on disk.
      await on.run(['mkdir', '--mode=0700', '--', step.path]);
      return;
    case 'snapshot':
      return snapshotSubvolume(on, step);
    case 'delete-subvolume':
      return deleteSubvolume(on, step.path);
    case 'make-netns':
      return ip.makeNetns(on, step.netns);
    case 'delete-netns':
      return ip.deleteNetns(on, step.netns);
    case 'make-link':
      // The alias is the namespace's name, by which machine.list finds the build of a link.
      await ip.makeVeth(on, { name: step.link, peer: step.inside, peerNetns: step.netns, alias: step.netns });
      await ip.withoutLinkLocal6(on, step.link);
      await ip.withoutLinkLocal6(on, step.inside, step.netns);
      await ip.addPort(on, { link: step.link, bridge: step.bridge, isolated: true });
      await ip.addAddress(on, step.inside, step.address, step.netns);
      await ip.setUp(on, step.inside, step.netns);
      return ip.setDefaultRoute(on, step.gateway, step.netns);
    case 'delete-link':
      return ip.deleteLink(on, step.link);
    case 'open-port': {
      const element = { address: step.address, port: step.port, comment: step.build };
      return loadRuleset(on, tableRuleset(layout.bridge) + openPort(element));
    }
    case 'close-port':
      return loadRuleset(on, closePort(step));
    case 'start-transient':
      return systemd.startTransient(on, step.unit);
    case 'kill-unit':
      return systemd.killUnit(on, step.unit);
    case 'start-unit':
      return systemd.startUnit(on, step.unit);
    case 'stop-unit':
      return systemd.stopUnit(on, step.unit);
    case 'restart-unit':
      return systemd.restartUnit(on, step.unit);
    case 'forget-unit':
      return systemd.resetFailed(on, step.unit);
    case 'remove-folders':
      await on.run(['rmdir', '--', ...step.paths], { okStatus: 'any' });
      return;
    case 'set-hostname':
      await on.run(['hostname', step.name]);
      return;
    case 'reboot':
      return systemd.reboot(on);
  }
}
