/**
 * The least that boots, with the kernel for virtual machines (`image build minimal --hardware vm`). A start for a definition of
 * one's own, and what the pipeline is measured with.
 */
import type { HostDefinition } from '../../properties/host-definition.ts';
import { minimalSystem } from './_minimal-system.ts';

export const host: HostDefinition = {
  name: 'minimal',
  summary: 'Debian with systemd and sshd, in RAM',
  base: { distribution: 'debian', suite: 'trixie' },
  properties: minimalSystem('linux-image-cloud-amd64'),
};
