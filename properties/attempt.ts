/** One application being tried, and what became of it; what a program said of a secret is not in it. */
import { AbortedChangeError, FailedChangeError, type PropertyApplication, describeApplication } from './property.ts';
import type { SecretMask } from './secret.ts';

/** How it went: `ok` held already; `aborted` gave up without a change; `skipped` was not tried. */
export type ResultOutcome = 'changed' | 'ok' | 'failed' | 'aborted' | 'skipped';

/** What became of one application. */
export interface PropertyResult {
  readonly application: PropertyApplication;
  readonly description: string;
  readonly outcome: ResultOutcome;
  readonly durationMs: number;
  readonly error?: Error;
  /** For a combinator: what became of its children. */
  readonly children: readonly PropertyResult[];
}

/** One application being tried. */
export class Attempt {
  readonly application: PropertyApplication;
  readonly description: string;
  readonly children: PropertyResult[] = [];
  readonly #mask: SecretMask;
  readonly #started = performance.now();

  constructor(application: PropertyApplication, mask: SecretMask, action: 'apply' | 'unapply') {
    this.application = application;
    this.#mask = mask;
    this.description = `${action === 'unapply' ? 'not: ' : ''}${describeApplication(application)}`;
  }

  end(outcome: ResultOutcome, error?: Error): PropertyResult {
    return {
      application: this.application,
      description: this.description,
      outcome,
      durationMs: performance.now() - this.#started,
      ...(error === undefined ? {} : { error }),
      children: this.children,
    };
  }

  fail(error: unknown, interrupted: boolean): PropertyResult {
    const known = hideSecrets(error, this.#mask);
    if (interrupted) return this.end('aborted', known);
    // A child gave up, but others had changed something by then.
    const changed = this.children.some(({ outcome }) => outcome === 'changed' || outcome === 'failed');
    return this.end(known instanceof AbortedChangeError && !changed ? 'aborted' : 'failed', known);
  }
}

/** The same error, or one without the secrets that a program said. */
export function hideSecrets(error: unknown, mask: SecretMask): Error {
  const known = error instanceof Error ? error : new FailedChangeError(String(error));
  if (!mask.isIn(textOfError(known))) return known;
  const hint = 'hint' in known && typeof known.hint === 'string' ? { hint: mask.hide(known.hint) } : {};
  const hidden = new FailedChangeError(mask.hide(known.message), hint);
  return known instanceof AbortedChangeError ? new AbortedChangeError(hidden.message) : hidden;
}

/** All that an error could show: its words, its fields, its causes. */
function textOfError(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  const fields = Object.values(error).map((value: unknown) =>
    value instanceof Uint8Array
      ? Buffer.from(value).toString('utf8')
      : typeof value === 'string'
        ? value
        : JSON.stringify(value),
  );
  return [error.message, error.stack, ...fields, error.cause === undefined ? '' : textOfError(error.cause)].join('\n');
}
