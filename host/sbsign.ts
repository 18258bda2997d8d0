/** sbsign(1), of Debian's package `sbsigntool`: signatures that UEFI firmware checks under Secure Boot (Authenticode). */
import type { Connection } from '../connections/connection.ts';

/** Paths, on the host of the connection. */
export interface EfiSigning {
  readonly program: string;
  /** RSA, PEM, without a password. */
  readonly key: string;
  /** X.509, PEM. */
  readonly certificate: string;
  readonly output: string;
}

/** Signs an EFI program. @throws {CommandError} when key and certificate do not fit, or one cannot be read */
export async function signEfi(on: Connection, signing: EfiSigning): Promise<void> {
  const { program, key, certificate, output } = signing;
  await on.run(['sbsign', '--key', key, '--cert', certificate, '--output', output, program]);
  // sbsign 0.9.4 ends with 0 also when it could not write all of it.
  await on.run(['sbverify', '--cert', certificate, output]);
}
