/**
 * Secure Boot with keys of one's own: OVMF trusts one certificate, which is enrolled as PK, KEK and db. The signed image
 * boots from the network without any boot loader; with one bit altered it does not.
 */
import assert from 'node:assert/strict';
import { X509Certificate } from 'node:crypto';
import { mkdtemp, open, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { openLocal } from '../../connections/local.ts';
import { findMirror } from '../../host/apt.ts';
import { buildImage } from '../../image/build.ts';
import { buildHost } from '../../image/hosts/build-host.ts';
import { publishImage } from '../../image/publish/publish.ts';
import { Guest } from '../../lab/guest.ts';
import { type Lab, openLab } from '../../lab/lab.ts';
import { waitForStatus } from '../../lab/status.ts';

const TOP = join(import.meta.dirname, '../..');
const STUB = '/usr/lib/systemd/boot/efi/linuxx64.efi.stub';
const BOOT_MS = 240_000;

let folder: string;
let into: string;
let certificate: Uint8Array;

before(
  async () => {
    folder = await mkdtemp(join(tmpdir(), 'secure-boot-'));
    into = join(folder, 'www');
    await using local = openLocal();
    const key = join(folder, 'db.key');
    const pem = join(folder, 'db.crt');
    const request = ['openssl', 'req', '-new', '-x509', '-newkey', 'rsa:2048', '-nodes', '-days', '2'];
    await local.run([...request, '-subj', '/CN=Build OS test/', '-keyout', key, '-out', pem]);
    certificate = new X509Certificate(await readFile(pem)).raw;
    const mirror = await findMirror(local);
    const { image } = await buildImage({ definition: buildHost, work: join(TOP, 'work'), mirror });
    await publishImage({
      image,
      into,
      url: 'http://10.77.0.1',
      kernelArgs: ['console=ttyS0'],
      uki: { stub: STUB, key, certificate: pem },
    });
  },
  { timeout: 600_000 },
);
after(() => rm(folder, { recursive: true, force: true }));

function boot(lab: Lab, name: string): Promise<Guest> {
  return Guest.start({
    name,
    firmware: 'uefi',
    // The firmware's System Management Mode is emulated reliably; KVM's is not asked for.
    accelerator: 'tcg',
    memoryMiB: 3072,
    network: lab.network(),
    folder: join(folder, name),
    secureBoot: { certificate },
  });
}

describe('Secure Boot', { timeout: 900_000 }, () => {
  test('the signed image boots over PXE, and its monitor comes up on a locked kernel', async () => {
    await using lab = await openLab({ httpFolder: into, tftpFolder: into, bootFiles: { uefi: 'buildos.efi' } });
    await using guest = await boot(lab, 'pxe');
    await guest.waitForLine('secureboot: Secure boot enabled', { timeoutMs: BOOT_MS });
    await guest.whileRunning('monitor ready', (signal) =>
      waitForStatus(lab, (status) => status.events.some((event) => event.name === 'monitor-ready'), {
        what: 'monitor ready',
        timeoutMs: BOOT_MS,
        signal,
      }),
    );
    assert.ok(
      lab.log.events.some(
        (event) => event.source === 'tftp' && event.name === 'buildos.efi' && event.result === 'done',
      ),
    );
    assert.ok(!lab.log.events.some((event) => event.source === 'http' && event.path.endsWith('buildos-initrd')));
  });

  test('it boots over HTTP, too; with one bit altered the firmware refuses it', async () => {
    const http = 'http://10.77.0.1/buildos.efi';
    await using lab = await openLab({ httpFolder: into, bootFiles: { uefi: 'no-such-file', http } });
    {
      await using guest = await boot(lab, 'http');
      await guest.waitForLine('secureboot: Secure boot enabled', { timeoutMs: BOOT_MS });
      assert.ok(guest.lines.some((line) => line.includes('UEFI HTTPv4')));
    }
    await flipBit(join(into, 'buildos.efi'), 100_000_000);
    await using guest = await boot(lab, 'altered');
    await guest.waitForLine(/failed to load Boot\d+ "UEFI HTTPv4.*(Security Violation|Access Denied)/, {
      timeoutMs: BOOT_MS,
    });
    assert.ok(!guest.lines.some((line) => line.includes('Linux version')));
  });
});

async function flipBit(file: string, offset: number): Promise<void> {
  await using handle = await open(file, 'r+');
  const byte = Buffer.alloc(1);
  await handle.read(byte, 0, 1, offset);
  byte.writeUInt8(byte.readUInt8(0) ^ 1);
  await handle.write(byte, 0, 1, offset);
}
