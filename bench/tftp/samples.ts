/** What `bench.py --json` writes: a sample for each client run, and what is made of several. */
import { z } from 'zod';

/** One run of a client against one server. */
export interface Sample {
  readonly server: string;
  /** the numbers of the row by bench.py's names: `MBps`, `seconds`, `failed`, `server_cpu_s_per_GB`, … */
  readonly values: Readonly<Record<string, number>>;
  /** the last error that a client saw */
  readonly error?: string;
}

const fileShape = z.object({
  rows: z.array(z.looseObject({ server: z.string(), last_error: z.string().optional() })),
});

/**
 * Reads the rows.
 *
 * @param json - the parsed file
 * @throws {z.ZodError} when it is not bench.py's
 */
export function parseSamples(json: unknown): readonly Sample[] {
  return fileShape.parse(json).rows.map((row) => {
    const values: Record<string, number> = {};
    for (const [name, value] of Object.entries(row)) if (typeof value === 'number') values[name] = value;
    return { server: row.server, values, ...(row.last_error && { error: row.last_error }) };
  });
}

/** Samples of one server, and of one setting where it has several: `{ b: 1468, w: 64 }`. */
export function select(
  samples: readonly Sample[],
  server: string,
  where: Readonly<Record<string, number>> = {},
): readonly Sample[] {
  return samples.filter(
    (sample) =>
      sample.server === server && Object.entries(where).every(([name, value]) => sample.values[name] === value),
  );
}

/** Transfers that failed, never ended, or brought wrong bytes. */
export function countFailures(samples: readonly Sample[]): number {
  const fields = ['failed', 'unfinished', 'verify_errors'];
  return samples.reduce((sum, { values }) => sum + fields.reduce((part, name) => part + (values[name] ?? 0), 0), 0);
}

/** The median of a field, over the rounds; undefined when no sample has it. Of an even number, the mean of the middle two. */
export function median(samples: readonly Sample[], field: string): number | undefined {
  const sorted = samples.flatMap(({ values }) => values[field] ?? []).sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  const high = sorted[middle];
  if (high === undefined) return undefined;
  return sorted.length % 2 === 1 ? high : (high + (sorted[middle - 1] ?? high)) / 2;
}
