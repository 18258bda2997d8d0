/** Numbers on the command line. */
import { InvalidArgumentError } from 'commander';

/** For an option or argument that is a count. @throws {InvalidArgumentError} */
export function countOf(text: string): number {
  if (!/^\d{1,9}$/.test(text)) throw new InvalidArgumentError('expected a number, 0 or more');
  return Number(text);
}
