/** Sizes for people. */

const UNITS = ['bytes', 'KiB', 'MiB', 'GiB'] as const;

/** `512 bytes`, `1.5 KiB`, `116 MiB`: three digits at least, no more than one after the point. */
export function formatBytes(bytes: number): string {
  let [value, unit] = [bytes, 0];
  while (Math.abs(value) >= 1024 && unit < UNITS.length - 1) {
    value /= 1024;
    unit += 1;
  }
  return `${unit === 0 || Math.abs(value) >= 100 ? value.toFixed(0) : value.toFixed(1)} ${UNITS[unit]}`;
}

/** The same with its sign: `+1.5 KiB`, `±0 bytes`. */
export function formatBytesDelta(bytes: number): string {
  if (bytes === 0) return '±0 bytes';
  return bytes > 0 ? `+${formatBytes(bytes)}` : `-${formatBytes(-bytes)}`;
}

/** `1 file`, `12 files`. */
export const countFiles = (files: number): string => (files === 1 ? '1 file' : `${files} files`);
