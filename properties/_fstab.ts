/**
 * The text of /etc/fstab (fstab(5)): one entry set or taken out, every other line left as it is.
 *
 *   DEVICE  WHERE  TYPE  OPTIONS  DUMP  PASS
 */

/** An entry; the first two fields name it: a mount point, or for swap (`where` is `none`) a device. */
export interface FstabEntry {
  readonly device: string;
  /** Mount point; `none` for swap. */
  readonly where: string;
  readonly type: string;
  readonly options: readonly string[];
  /** When it is checked at boot: 0 never, 1 the root, 2 others. */
  readonly pass: 0 | 1 | 2;
}

/** The entry as a line, without a newline. */
export function formatEntry({ device, where, type, options, pass }: FstabEntry): string {
  const words = options.length === 0 ? 'defaults' : options.join(',');
  return [device, where, type, words].map(escapeField).join(' ') + ` 0 ${pass}`;
}

/** Whether the entry is there, as it should be, once. */
export function hasEntry(text: string, entry: FstabEntry): boolean {
  const own = text.split('\n').filter((line) => isSame(line, entry));
  return own.length === 1 && own[0]?.split(/\s+/).join(' ') === formatEntry(entry);
}

/** The device that the text has for a mount point; undefined when it has none. */
export function deviceAt(text: string, where: string): string | undefined {
  const line = text.split('\n').find((one) => isSame(one, { device: '', where }));
  return line?.trim().split(/\s+/)[0];
}

/** The text with the entry in the place of one for the same, or at its end. */
export function withEntry(text: string, entry: FstabEntry): string {
  const lines = text.split('\n');
  const first = lines.findIndex((line) => isSame(line, entry));
  if (first < 0) return `${text}${text === '' || text.endsWith('\n') ? '' : '\n'}${formatEntry(entry)}\n`;
  return lines
    .map((line, index) => (index === first ? formatEntry(entry) : line))
    .filter((line, index) => index === first || !isSame(line, entry))
    .join('\n');
}

/** The text without the entry, whatever it says of it. */
export function withoutEntry(text: string, entry: Pick<FstabEntry, 'device' | 'where'>): string {
  return text
    .split('\n')
    .filter((line) => !isSame(line, entry))
    .join('\n');
}

/** Whether a line is about the same mount point, or the same device for swap. */
function isSame(line: string, { device, where }: Pick<FstabEntry, 'device' | 'where'>): boolean {
  if (/^\s*(#|$)/.test(line)) return false;
  const [found, at, type] = line.trim().split(/\s+/);
  return where === 'none' ? found === escapeField(device) && type === 'swap' : at === escapeField(where);
}

/** fstab(5): blanks and backslashes in octal. */
const escapeField = (field: string): string =>
  field.replaceAll(/[\\ \t]/g, (one) => `\\${one.charCodeAt(0).toString(8).padStart(3, '0')}`);
