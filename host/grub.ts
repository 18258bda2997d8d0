/** grub-mkimage(1), of Debian's package `grub-common`: a GRUB that is one file, with the modules it needs and its first commands. */
import type { Connection } from '../connections/connection.ts';

/** Paths on the host of the connection. */
export interface GrubImage {
  /** A platform of GRUB, whose modules are in `/usr/lib/grub/<platform>`: `x86_64-efi` (Debian package `grub-efi-amd64-bin`). */
  readonly platform: string;
  readonly modules: readonly string[];
  /** A file of commands that run before anything else is read. */
  readonly config: string;
  readonly output: string;
}

/** Makes a GRUB; the same modules and commands give the same bytes. @throws {CommandError} when a module is not there */
export async function makeGrubImage(on: Connection, image: GrubImage): Promise<void> {
  const { platform, modules, config, output } = image;
  const options = ['--format', platform, '--config', config, '--prefix', '/', '--output', output];
  await on.run(['grub-mkimage', ...options, ...modules]);
}
