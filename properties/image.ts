/** What concerns only the image made of a host. */
import { z } from 'zod';
import { arg, textThat } from './args.ts';
import { InapplicablePropertyError, type PropertyApplication, defineProperty } from './property.ts';

/**
 * Paths left out when the image is packed: from the root, without the first slash, `*`, `**`, `?`, `[…]` and `{a,b}` as in a shell.
 * With packages: unless the definition asks for one of these by name.
 */
export const excludes: (patterns: readonly string[], unless?: readonly string[]) => PropertyApplication =
  defineProperty<[patterns: readonly string[], unless?: readonly string[]]>({
    id: 'image.excludes',
    kind: 'posix',
    describe: (patterns, unless = []) =>
      `left out of the image${unless.length === 0 ? '' : `, unless ${unless.join(' or ')} is asked for`}: ${patterns.join(' ')}`,
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
      arg('unless', z.array(z.string()).optional(), 'packages: who asks for one of them by name keeps the paths'),
    ],
    hostattrs: (_known, patterns, unless = []) =>
      unless.length === 0 ? { excludes: patterns } : { excludesUnless: [{ patterns, packages: unless }] },
  });

/** Wires that hosts boot over, by what they carry in a second. */
export const WIRES = ['100M', '1G', '10G'] as const;

/** One of {@link WIRES}. */
export type Wire = (typeof WIRES)[number];

/** How fast the wire is that the host boots over; the image is packed so that it is up soonest. */
export const bootsOver: (wire: Wire) => PropertyApplication = defineProperty<[wire: Wire]>({
  id: 'image.bootsOver',
  kind: 'posix',
  describe: (wire) => `boots over a wire of ${wire}`,
  about:
    'How fast the wire is that a host boots over, or its share of it: the image is packed so that it is up soonest. What packs ' +
    'tighter takes longer to read, and to pack. image build --wire has precedence.',
  example: ['100M'],
  args: [arg('wire', z.enum(WIRES), 'bits in a second')],
  hostattrs: (known, wire) => {
    const [other = wire] = known.wires;
    if (other !== wire) {
      throw new InapplicablePropertyError(
        `"${known.name}" boots over a wire of ${other} and of ${wire}: it is packed for one`,
      );
    }
    return { wires: [wire] };
  },
});
