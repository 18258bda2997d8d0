/** What concerns only the image made of a host. */
import { z } from 'zod';
import { arg, textThat } from './args.ts';
import { type PropertyApplication, defineProperty } from './property.ts';

/** Paths left out when the image is packed: from the root, without the first slash, `*`, `**`, `?`, `[…]` and `{a,b}` as in a shell. */
export const excludes: (patterns: readonly string[]) => PropertyApplication = defineProperty<
  [patterns: readonly string[]]
>({
  id: 'image.excludes',
  kind: 'posix',
  describe: (patterns) => `left out of the image: ${patterns.join(' ')}`,
  about: 'Paths left out when the image is packed; on the host where it is made, they stay.',
  example: [['usr/share/doc', 'var/cache/*']],
  args: [
    arg(
      'patterns',
      z.array(
        textThat(
          (pattern) => pattern !== '' && !pattern.startsWith('/') && !/(^|\/)\.\.(\/|$)/.test(pattern),
          'a path from the root, without the first slash and ".."',
        ),
      ),
      'from the root, without the first slash; `*`, `**`, `?`, `[…]` and `{a,b}` as in a shell',
    ),
  ],
  hostattrs: (_known, patterns) => ({ excludes: patterns }),
});
