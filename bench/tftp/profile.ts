/** A CPU profile as `--cpu-prof` writes it: where the time went. */
import { z } from 'zod';

const profileShape = z.object({
  nodes: z.array(
    z.object({
      id: z.number(),
      callFrame: z.object({ functionName: z.string(), url: z.string(), lineNumber: z.number() }),
    }),
  ),
  samples: z.array(z.number()),
  timeDeltas: z.array(z.number()),
});

/** A function and the time spent in itself, not in what it calls. */
export interface SelfTime {
  /** `send (server.mjs:812)`, `(garbage collector)` */
  readonly name: string;
  readonly ms: number;
  /** of the time in which the process was not idle */
  readonly share: number;
}

/**
 * The functions with the largest self time.
 *
 * @param json - a parsed `.cpuprofile`
 * @throws {z.ZodError} when it is none
 */
export function topFunctions(json: unknown, count: number): readonly SelfTime[] {
  const { nodes, samples, timeDeltas } = profileShape.parse(json);
  const names = new Map(nodes.map(({ id, callFrame }) => [id, nameOf(callFrame)]));
  const totals = new Map<string, number>();
  for (const [index, id] of samples.entries()) {
    const name = names.get(id) ?? '?';
    totals.set(name, (totals.get(name) ?? 0) + Math.max(0, timeDeltas[index] ?? 0) / 1000);
  }
  totals.delete('(idle)');
  const busy = [...totals.values()].reduce((sum, ms) => sum + ms, 0);
  return [...totals]
    .map(([name, ms]) => ({ name, ms, share: busy === 0 ? 0 : ms / busy }))
    .sort((a, b) => b.ms - a.ms)
    .slice(0, count);
}

function nameOf({ functionName, url, lineNumber }: z.infer<typeof profileShape>['nodes'][number]['callFrame']): string {
  const name = functionName === '' ? '(anonymous)' : functionName;
  return url === '' ? name : `${name} (${url.replace(/^.*\//, '')}:${lineNumber + 1})`;
}
