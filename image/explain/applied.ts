/** The properties that made an image, from the memory that they left in it. */
import { z } from 'zod';
import { APPLICATION, type PropertyApplication } from '../../properties/property.ts';
import type { MergedRoot } from './image-parts.ts';

/** Where an image remembers the properties that were applied; see properties/memory.ts. */
const MEMORY = /^var\/lib\/buildos\/properties\/[^/]+\.json$/;

const memorySchema = z.object({ applied: z.array(APPLICATION) });

/** The list that the properties of an image left in it; `undefined` when there is none, or not one alone. */
export function appliedProperties({ visible }: MergedRoot): readonly PropertyApplication[] | undefined {
  const found = [...visible].filter(([path]) => MEMORY.test(path));
  const [first] = found;
  if (first === undefined || found.length > 1) return undefined;
  try {
    return memorySchema.parse(JSON.parse(Buffer.from(first[1].entry.content()).toString('utf8'))).applied;
  } catch {
    return undefined;
  }
}
