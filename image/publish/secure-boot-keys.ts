/**
 * Key and certificate of Secure Boot, looked at before anything is made or signed with them: what sbsign and OpenSSL would
 * complain of in their own words, or not at all.
 */
import { createPrivateKey, createPublicKey, type KeyObject, X509Certificate } from 'node:crypto';
import { readFile } from 'node:fs/promises';

/** Files, PEM. */
export interface SigningFiles {
  readonly key?: string;
  readonly certificate?: string;
}

/** Key or certificate cannot be used. */
export class SigningError extends Error {
  override readonly name = 'SigningError';
  readonly hint: string;

  constructor(message: string, hint: string, options?: ErrorOptions) {
    super(message, options);
    this.hint = hint;
  }
}

const MAKE = '"docs/boot.md", "Secure Boot with your own keys", says how to make a pair';

/** What UEFI's SetupMode and db take; shorter ones are refused by firmware of today. */
const MIN_BITS = 2048;

/**
 * Checks that files sign what firmware will accept.
 *
 * @returns warnings
 * @throws {SigningError} naming the file and what is wrong with it
 */
export async function checkSigning(
  { key, certificate }: SigningFiles,
  now: Date = new Date(),
): Promise<readonly string[]> {
  if (key === undefined && certificate === undefined) return [];
  if (key === undefined || certificate === undefined) {
    const missing = key === undefined ? 'the key: --secure-boot-key' : 'the certificate: --secure-boot-certificate';
    throw new SigningError(
      'Cannot sign for Secure Boot: key and certificate go together',
      `give both files; here lacks ${missing}`,
    );
  }
  const privateKey = parseKey(key, await read(key, 'key'));
  const x509 = parseCertificate(certificate, await read(certificate, 'certificate'));
  if (!x509.checkPrivateKey(privateKey)) {
    throw new SigningError(
      `Cannot sign for Secure Boot: the key ${key} is not that of the certificate ${certificate} (${nameOf(x509)})`,
      'give the two that were made together: firmware has the certificate, and would refuse what another key has signed',
    );
  }
  const day = (date: Date): string => date.toISOString().slice(0, 10);
  if (x509.validToDate < now) {
    return [
      `warning: the certificate ${certificate} expired on ${day(x509.validToDate)}; firmware does not look at that, other tools do`,
    ];
  }
  if (x509.validFromDate > now) {
    return [
      `warning: the certificate ${certificate} is valid from ${day(x509.validFromDate)} only; is the clock of this machine right?`,
    ];
  }
  return [];
}

async function read(file: string, what: string): Promise<string> {
  try {
    return await readFile(file, 'latin1');
  } catch (cause) {
    throw new SigningError(
      `Cannot sign for Secure Boot: cannot read the ${what} ${file}`,
      'is the path right, and may this user read it?',
      {
        cause,
      },
    );
  }
}

function parseKey(file: string, pem: string): KeyObject {
  const refuse = (reason: string, hint: string, cause?: unknown): SigningError =>
    new SigningError(`Cannot sign for Secure Boot with the key ${file}: ${reason}`, hint, { cause });
  if (/-----BEGIN ENCRYPTED PRIVATE KEY|Proc-Type: 4,ENCRYPTED/.test(pem)) {
    throw refuse(
      'it is encrypted, and sbsign asks for no password',
      `take the password out, in a place that only root can read: openssl pkey -in ${file} -out NEW.key; chmod 600 NEW.key`,
    );
  }
  if (/-----BEGIN CERTIFICATE/.test(pem) && !/PRIVATE KEY/.test(pem)) {
    throw refuse('it is a certificate', 'were the files of --secure-boot-key and --secure-boot-certificate swapped?');
  }
  if (!/-----BEGIN ([A-Z]+ )?PRIVATE KEY-----/.test(pem)) {
    throw refuse(
      'it is no private key in PEM form',
      `${MAKE}; of DER: openssl pkey -inform DER -in ${file} -out NEW.key`,
    );
  }
  let key: KeyObject;
  try {
    key = createPrivateKey(pem);
  } catch (cause) {
    throw refuse('it is damaged', MAKE, cause);
  }
  const bits = key.asymmetricKeyDetails?.modulusLength ?? 0;
  if (key.asymmetricKeyType !== 'rsa') throw refuse(`it is of type ${key.asymmetricKeyType}, firmware wants RSA`, MAKE);
  if (bits < MIN_BITS) throw refuse(`it has ${bits} bits, firmware wants ${MIN_BITS} or more`, MAKE);
  return key;
}

function parseCertificate(file: string, pem: string): X509Certificate {
  const refuse = (reason: string, hint: string, cause?: unknown): SigningError =>
    new SigningError(`Cannot sign for Secure Boot with the certificate ${file}: ${reason}`, hint, { cause });
  if (!/-----BEGIN CERTIFICATE-----/.test(pem)) {
    if (/PRIVATE KEY-----/.test(pem)) {
      throw refuse('it is a private key', 'were the files of --secure-boot-key and --secure-boot-certificate swapped?');
    }
    throw refuse(
      'it is no certificate in PEM form',
      `of DER (.cer): openssl x509 -inform DER -in ${file} -out NEW.crt; else ${MAKE}`,
    );
  }
  try {
    const x509 = new X509Certificate(pem);
    createPublicKey(pem);
    return x509;
  } catch (cause) {
    throw refuse('it is damaged', MAKE, cause);
  }
}

const nameOf = (x509: X509Certificate): string => x509.subject.replaceAll('\n', ', ');
