/** The built image, booted over PXE from both kinds of firmware, until its monitor says over TFTP that it is ready. */
import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { openLocal } from '../../connections/local.ts';
import { findMirror } from '../../host/apt.ts';
import type { Firmware } from '../../host/qemu.ts';
import { buildImage } from '../../image/build.ts';
import type { BuiltImage } from '../../image/built-image.ts';
import { DNSMASQ_CONF } from '../../image/publish/dhcp-config.ts';
import { buildHost } from '../../image/hosts/build-host.ts';
import { publishImage } from '../../image/publish/publish.ts';
import { findAccelerator } from '../../lab/accelerator.ts';
import { findMilestones, findPhases } from '../../lab/boot-chart.ts';
import { Guest } from '../../lab/guest.ts';
import { type Lab, openLab } from '../../lab/lab.ts';
import { type StatusReading, waitForStatus } from '../../lab/status.ts';

const TOP = join(import.meta.dirname, '../..');
const BOOT_MS = 240_000;

let image: BuiltImage;
let folder: string;

before(
  async () => {
    folder = await mkdtemp(join(tmpdir(), 'pxe-boot-'));
    // The same work folder as the demo's: what has been downloaded once serves all.
    const mirror = await findMirror(openLocal());
    ({ image } = await buildImage({ definition: buildHost, work: join(TOP, 'work'), mirror }));
  },
  { timeout: 600_000 },
);
after(() => rm(folder, { recursive: true, force: true }));

async function boot(lab: Lab, firmware: Firmware): Promise<Guest> {
  return Guest.start({
    name: firmware,
    firmware,
    accelerator: await findAccelerator(image.kernel),
    memoryMiB: 2048,
    network: lab.network(),
    folder: join(folder, firmware),
  });
}

const monitorReady = (lab: Lab, guest: Guest): Promise<StatusReading> =>
  guest.whileRunning('monitor ready', (signal) =>
    waitForStatus(lab, (status) => status.events.some((event) => event.name === 'monitor-ready'), {
      what: 'monitor ready',
      timeoutMs: BOOT_MS,
      signal,
    }),
  );

describe('the image boots over PXE', { timeout: 900_000 }, () => {
  for (const firmware of ['bios', 'uefi'] as const) {
    test(`from ${firmware}`, async () => {
      const into = join(folder, `www-${firmware}`);
      const loaders = { bios: 'ipxe', uefi: 'ipxe' } as const;
      const kernelArgs = ['console=ttyS0'];
      const published = await publishImage({ image, into, url: 'http://10.77.0.1', kernelArgs, loaders });
      // The folder as it was published, down to what DHCP says.
      const bootConfig = join(into, DNSMASQ_CONF);
      await using lab = await openLab({ httpFolder: into, tftpFolder: into, bootConfig });
      await using guest = await boot(lab, firmware);
      const status = await monitorReady(lab, guest);

      assert.equal(status.buildId, published.buildId);
      const nbp = lab.log.events.some((event) => event.source === 'tftp' && event.name === 'snponly.efi');
      assert.equal(
        nbp,
        firmware === 'uefi',
        'UEFI firmware fetches the NBP from our TFTP server; a BIOS card has iPXE',
      );
      const phases = findPhases(
        findMilestones({
          powerOnMs: guest.startedAtMs,
          lab: lab.log.events,
          guest: guest.log.events,
          status,
        }),
      ).map((phase) => phase.name);
      assert.deepEqual(phases, ['firmware, NBP', 'download', 'kernel', 'init', 'userspace', 'monitor ready']);
    });
  }
});
