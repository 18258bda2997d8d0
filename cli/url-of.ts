/** URLs on the command line. */
import { InvalidArgumentError } from 'commander';

/** For an option that is an http(s) URL. @throws {InvalidArgumentError} */
export function urlOf(text: string): string {
  if (!URL.canParse(text) || !/^https?:/.test(text)) throw new InvalidArgumentError('expected an http(s) URL');
  return text;
}
