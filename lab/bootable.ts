/**
 * Something that can be booted: the folder of a built image, or a folder that `buildos image publish` has written. Both hold a kernel,
 * an initrd and the arguments that belong to them.
 */
import { readFile, readlink } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { NoImageError, readImage } from '../image/built-image.ts';

export interface Bootable {
  readonly buildId: string;
  /** To be served over HTTP. */
  readonly folder: string;
  /** Paths below it. */
  readonly kernel: string;
  readonly initrd: string;
  /** Kernel arguments. */
  readonly args: readonly string[];
}

/** A folder holds nothing that can be booted. */
export class NotBootableError extends Error {
  override readonly name = 'NotBootableError';
  readonly hint = 'give a folder of "buildos image list", or one that "buildos image publish --into" has written';
}

/** @throws {NotBootableError} */
export async function readBootable(folder: string): Promise<Bootable> {
  const top = resolve(folder);
  try {
    const image = await readImage(top);
    return {
      buildId: image.buildId,
      folder: top,
      kernel: 'buildos-image',
      initrd: 'buildos-initrd',
      args: image.kernelArgs,
    };
  } catch (error) {
    if (!(error instanceof NoImageError)) throw error;
  }
  try {
    const version = await readlink(join(top, 'current'));
    return {
      buildId: (await readFile(join(top, version, 'buildos-buildid'), 'utf8')).trim(),
      folder: top,
      kernel: join(version, 'buildos-image'),
      initrd: join(version, 'buildos-initrd'),
      args: parseKernelLine(await readFile(join(top, 'boot.ipxe'), 'utf8')),
    };
  } catch (cause) {
    throw new NotBootableError(`Cannot boot from ${folder}: it holds neither an image nor a published one`, { cause });
  }
}

/**
 * The kernel arguments of an iPXE script as `image publish` writes it, without `initrd=` and what iPXE fills in for single hosts.
 *
 * @throws {RangeError} when there is no such line
 */
export function parseKernelLine(script: string): string[] {
  const line = /^kernel \S+ initrd=\S+ (.*?)(?: \|\| goto \S+)?$/m.exec(script)?.[1];
  if (line === undefined) throw new RangeError('Cannot find the line "kernel URL initrd=NAME ARGUMENTS" in boot.ipxe');
  // A value with blanks is in double quotes.
  return (line.match(/(?:[^\s"]|"[^"]*")+/g) ?? []).filter((word) => !word.includes('${'));
}

/** The arguments for a guest of the lab: the bootable's, more of ours, and the serial console unless a console is named. */
export function guestArgs(bootable: Bootable, more: readonly string[]): readonly string[] {
  const args = [...bootable.args, ...more];
  return args.some((arg) => arg.startsWith('console=')) ? args : [...args, 'console=ttyS0'];
}

/** An iPXE script that boots it, its folder served at `url`. */
export function formatBootScript(bootable: Bootable, url: string, args: readonly string[]): string {
  return [
    '#!ipxe',
    `kernel ${url}/${bootable.kernel} initrd=buildos-initrd ${args.join(' ')}`,
    `initrd --name buildos-initrd ${url}/${bootable.initrd}`,
    'boot',
    '',
  ].join('\n');
}
