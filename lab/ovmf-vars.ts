/**
 * OVMF's variable store: a copy of the template with keys of one's own enrolled, so that a guest starts with Secure Boot
 * in force. On hardware an operator does that in the firmware's setup.
 *
 * ```
 *   ┌ firmware volume header ┬ variable store header 28 ┬ variable ┬ variable ┬ 0xff …
 *   variable: 0x55aa 2 │ state 1 │ 0 │ attributes 4 │ count 8 │ time 16 │ key 4 │ name size 4 │ data size 4 │ vendor 16 │ name │ data
 * ```
 *
 * Sources: EDK2 MdeModulePkg/Include/Guid/VariableFormat.h (AUTHENTICATED_VARIABLE_HEADER); UEFI 2.10 §32.4.1
 * (EFI_SIGNATURE_LIST), §32.3 (PK, KEK, db).
 */

/** EFI_GLOBAL_VARIABLE, EFI_IMAGE_SECURITY_DATABASE, EFI_SECURE_BOOT_ENABLE_DISABLE, EFI_CERT_X509. */
const GLOBAL = guid('8be4df61-93ca-11d2-aa0d-00e098032b8c');
const IMAGE_SECURITY = guid('d719b2cb-3d3a-4596-a3bc-dad00e67656f');
const SECURE_BOOT_ENABLE = guid('f0a30bc7-af08-4556-99c4-001009c93a44');
const CERT_X509 = guid('a5c059a1-94e4-4aa7-87b5-ab155c2bf072');
/** The store holds authenticated variables. */
const AUTHENTICATED_STORE = guid('aaf32c78-947b-439a-a180-2e144ec37792');
/** Who has enrolled the keys: any number will do. */
const OWNER = guid('6275696c-646f-7300-0000-000000000000');

const STORE_HEADER_BYTES = 28;
const VARIABLE_HEADER_BYTES = 60;
const VARIABLE_START = 0x55aa;
const STATE_ADDED = 0x3f;
/** NON_VOLATILE | BOOTSERVICE_ACCESS, and for keys RUNTIME_ACCESS | TIME_BASED_AUTHENTICATED_WRITE_ACCESS. */
const PRIVATE = 0x03;
const KEY = 0x27;

/**
 * Enrolls one certificate as platform key, key exchange key and signature database.
 *
 * @param template - `OVMF_VARS_4M.fd`, without variables
 * @param certificate - X.509, DER
 * @returns the store, of the template's size
 * @throws {RangeError} when the template is no empty store of OVMF
 */
export function enrollKeys(template: Uint8Array, certificate: Uint8Array): Buffer {
  const store = Buffer.from(template);
  const start = store.readUInt16LE(0x30);
  if (!store.subarray(start, start + 16).equals(AUTHENTICATED_STORE)) {
    throw new RangeError('Cannot enroll keys: the template is no store of authenticated variables');
  }
  const list = signatureList(certificate);
  const variables = [
    variable('PK', GLOBAL, KEY, list),
    variable('KEK', GLOBAL, KEY, list),
    variable('db', IMAGE_SECURITY, KEY, list),
    variable('SecureBootEnable', SECURE_BOOT_ENABLE, PRIVATE, Buffer.from([1])),
  ];
  let at = start + STORE_HEADER_BYTES;
  if (store.readUInt16LE(at) !== 0xffff) throw new RangeError('Cannot enroll keys: the template has variables already');
  for (const bytes of variables) {
    bytes.copy(store, at);
    at += Math.ceil(bytes.length / 4) * 4;
  }
  return store;
}

function variable(name: string, vendor: Buffer, attributes: number, data: Buffer): Buffer {
  const nameBytes = Buffer.from(`${name}\0`, 'utf16le');
  const header = Buffer.alloc(VARIABLE_HEADER_BYTES);
  header.writeUInt16LE(VARIABLE_START, 0);
  header.writeUInt8(STATE_ADDED, 2);
  header.writeUInt32LE(attributes, 4);
  header.writeUInt32LE(nameBytes.length, 36);
  header.writeUInt32LE(data.length, 40);
  vendor.copy(header, 44);
  return Buffer.concat([header, nameBytes, data]);
}

function signatureList(certificate: Uint8Array): Buffer {
  const entry = Buffer.concat([OWNER, certificate]);
  const header = Buffer.alloc(28);
  CERT_X509.copy(header);
  header.writeUInt32LE(header.length + entry.length, 16);
  header.writeUInt32LE(entry.length, 24);
  return Buffer.concat([header, entry]);
}

/** A GUID as UEFI stores it: the first three parts little-endian. */
function guid(text: string): Buffer {
  const [a = '', b = '', c = '', ...rest] = text.split('-');
  return Buffer.concat([
    ...[a, b, c].map((part) => Buffer.from(part, 'hex').reverse()),
    Buffer.from(rest.join(''), 'hex'),
  ]);
}
