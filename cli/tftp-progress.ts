/** One line on a terminal that says how far a transfer is: share, bytes, speed, time left. */
import type { Progress } from '../tftp/client.ts';

const BAR_CHARACTERS = 24;
/** The terminal is written to so often at most. */
const EVERY_MS = 100;
/** The speed is that of the last seconds. */
const SPEED_OVER_MS = 3000;

/** The line. */
export function formatProgress(
  progress: Progress & { readonly label: string; readonly bytesPerSecond: number },
  columns: number,
): string {
  const { bytes, totalBytes, bytesPerSecond, label } = progress;
  const speed = `${formatBytes(bytesPerSecond)}/s`;
  const figures: string[] = [];
  if (totalBytes === undefined) {
    figures.push(formatBytes(bytes), speed);
  } else {
    // Of an empty file all is there.
    const share = totalBytes === 0 ? 1 : Math.min(1, bytes / totalBytes);
    const filled = Math.floor(share * BAR_CHARACTERS);
    const bar = `[${'='.repeat(filled)}${filled < BAR_CHARACTERS ? '>' : ''}`.padEnd(BAR_CHARACTERS + 1);
    const leftSeconds = bytesPerSecond > 0 ? (totalBytes - bytes) / bytesPerSecond : Infinity;
    figures.push(
      `${String(Math.floor(share * 100)).padStart(3)} % ${bar}]`,
      `${formatBytes(bytes)} of ${formatBytes(totalBytes)}`,
      speed,
      `${formatSeconds(leftSeconds)} left`,
    );
  }
  const line = figures.join('  ');
  const room = columns - line.length - 3;
  const shown = label.length <= room ? label : `${label.slice(0, Math.max(0, room - 1))}…`;
  return `${room > 1 ? `${shown}  ` : ''}${line}`.slice(0, Math.max(1, columns - 1));
}

/** `512 B`, `1.5 MB`: thousands, as disks and networks are measured. */
export function formatBytes(bytes: number): string {
  if (bytes < 1000) return `${Math.round(bytes)} B`;
  const units = ['kB', 'MB', 'GB', 'TB', 'PB'];
  const power = Math.min(units.length, Math.floor(Math.log10(bytes) / 3));
  return `${(bytes / 1000 ** power).toFixed(1)} ${units[power - 1]}`;
}

/** `0:07`, `1:02:03`; unknown: `-:--`. */
function formatSeconds(seconds: number): string {
  if (!Number.isFinite(seconds) || seconds > 359_999) return '-:--';
  const whole = Math.ceil(seconds);
  const [hours, minutes, rest] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  const two = (value: number): string => String(value).padStart(2, '0');
  return hours > 0 ? `${hours}:${two(minutes)}:${two(rest)}` : `${minutes}:${two(rest)}`;
}

/** Draws the line while it is held, and wipes it at the end. */
export class ProgressLine implements Disposable {
  readonly #out: NodeJS.WriteStream;
  readonly #label: string;
  readonly #samples: { readonly atMs: number; readonly bytes: number }[] = [];
  #drawnAtMs = -Infinity;

  /** @param label - what is on its way; must be fit for a terminal */
  constructor(out: NodeJS.WriteStream, label: string) {
    this.#out = out;
    this.#label = label;
  }

  update(progress: Progress): void {
    const atMs = performance.now();
    if (atMs - this.#drawnAtMs < EVERY_MS) return;
    this.#drawnAtMs = atMs;
    // Fewer bytes than before: it was begun again.
    if (progress.bytes < (this.#samples.at(-1)?.bytes ?? 0)) this.#samples.length = 0;
    this.#samples.push({ atMs, bytes: progress.bytes });
    while (this.#samples.length > 2 && atMs - (this.#samples[0]?.atMs ?? atMs) > SPEED_OVER_MS) this.#samples.shift();
    const first = this.#samples[0] ?? { atMs, bytes: 0 };
    const bytesPerSecond = atMs > first.atMs ? ((progress.bytes - first.bytes) / (atMs - first.atMs)) * 1000 : 0;
    const line = formatProgress({ ...progress, label: this.#label, bytesPerSecond }, this.#out.columns);
    this.#out.write(`\r\u001b[K${line}`);
  }

  [Symbol.dispose](): void {
    if (this.#drawnAtMs !== -Infinity) this.#out.write('\r\u001b[K');
  }
}
