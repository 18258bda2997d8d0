/** What concerns only the image made of a host. */
import { type PropertyApplication, defineProperty } from './property.ts';

/** Paths left out when the image is packed: from the root, without the first slash, `*`, `**`, `?`, `[…]` and `{a,b}` as in a shell. */
export const excludes: (patterns: readonly string[]) => PropertyApplication = defineProperty<
  [patterns: readonly string[]]
>({
  id: 'image.excludes',
  kind: 'posix',
  describe: (patterns) => `left out of the image: ${patterns.join(' ')}`,
  args: (patterns) => {
    const wrong = patterns.find(
      (pattern) => pattern === '' || pattern.startsWith('/') || /(^|\/)\.\.(\/|$)/.test(pattern),
    );
    if (wrong !== undefined)
      throw new TypeError(`"${wrong}" must be a path from the root, without the first slash and ".."`);
  },
  hostattrs: (_known, patterns) => ({ excludes: patterns }),
});
