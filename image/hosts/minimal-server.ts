/**
 * The least that boots on server hardware: the kernel with all drivers, of which `--hardware server` keeps those of servers.
 */
import type { HostDefinition } from '../../properties/host-definition.ts';
import { minimalSystem } from './_minimal-system.ts';

export const host: HostDefinition = {
  name: 'minimal-server',
  summary: 'Debian with systemd and sshd, in RAM, for server hardware',
  base: { distribution: 'debian', suite: 'trixie' },
  properties: minimalSystem('linux-image-amd64'),
};
