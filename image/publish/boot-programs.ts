/** What a published folder holds beside configurations: `buildos.efi` and `buildos.iso`, made of a version that is there. */
import { mkdir, readFile, rename, rm, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { openLocal } from '../../connections/local.ts';
import { signEfi } from '../../host/sbsign.ts';
import { syncPath } from '../files.ts';
import { writeIso } from './iso.ts';
import type { PublicationSettings, UkiSettings } from './publication.ts';
import { PublishError } from './publish-error.ts';
import { PUBLISHED } from './published-version.ts';
import { checkSigning } from './secure-boot-keys.ts';
import { buildUki } from './uki.ts';

/** What is made into one program. */
export interface BootProgram {
  /** The folder of the version. */
  readonly version: string;
  readonly buildId: string;
  readonly args: readonly string[];
  readonly uki: UkiSettings;
}

/** What the programs are made and signed with is at hand. @throws {SigningError | PublishError} */
export async function checkPrograms({ uki, iso }: PublicationSettings): Promise<void> {
  for (const program of [uki, iso]) {
    if (program === undefined) continue;
    await checkSigning(program);
    if ((await stat(program.stub).catch(() => undefined))?.isFile() === true) continue;
    throw new PublishError(
      `Cannot make a unified kernel image: there is no ${program.stub}`,
      'it is in the package systemd-boot-efi',
    );
  }
}

/** Replaces a unified kernel image, whole or not at all. */
export async function replaceUki(file: string, what: BootProgram): Promise<void> {
  const temporary = `${file}.part-${process.pid}`;
  try {
    await makeUki(temporary, what);
    await syncPath(temporary);
    await rename(temporary, file);
  } finally {
    await rm(temporary, { force: true });
  }
}

/** Replaces an ISO 9660 image, whole or not at all. */
export async function replaceIso(file: string, what: BootProgram): Promise<void> {
  const temporary = `${file}.part-${process.pid}`;
  const scratch = `${temporary}.parts`;
  const { buildId, args: kernelArgs } = what;
  try {
    await mkdir(scratch, { recursive: true });
    const uki = join(scratch, 'uki');
    await makeUki(uki, what);
    await using local = openLocal();
    await writeIso(local, { uki, buildId, kernelArgs, output: temporary, scratch });
    await syncPath(temporary);
    await rename(temporary, file);
  } finally {
    for (const each of [temporary, scratch]) await rm(each, { recursive: true, force: true });
  }
}

/** Makes a unified kernel image, and signs it when there is a key. */
async function makeUki(output: string, { version, buildId, args, uki }: BootProgram): Promise<void> {
  const parts = {
    stub: await readFile(uki.stub),
    kernel: await readFile(join(version, PUBLISHED.kernel)),
    initrd: await readFile(join(version, PUBLISHED.initrd)),
  };
  const { key, certificate } = uki;
  const program = key === undefined ? output : `${output}.unsigned`;
  try {
    await writeFile(program, buildUki({ ...parts, kernelArgs: args, title: `Build OS ${buildId}`, buildId }));
    if (key === undefined || certificate === undefined) return;
    await using local = openLocal();
    await signEfi(local, { program, key, certificate, output });
  } finally {
    if (program !== output) await rm(program, { force: true });
  }
}
