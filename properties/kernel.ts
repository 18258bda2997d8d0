/** What the kernel is told and loads at boot. */
import { z } from 'zod';
import { arg, textThat } from './args.ts';
import { hasContent } from './file.ts';
import { eseq } from './combinators.ts';
import { type PropertyApplication, defineProperty } from './property.ts';

/** A word on the kernel command line, such as `quiet` or `console=ttyS0`. The image carries it; nothing is done on the host. */
export const option: (word: string) => PropertyApplication = defineProperty<[word: string]>({
  id: 'kernel.option',
  kind: 'posix',
  describe: (word) => `kernel option ${word}`,
  about: 'A word on the kernel command line. The image carries it; nothing is done on the host.',
  args: [
    arg(
      'word',
      textThat((word) => /^[!-~]+$/.test(word) && !word.includes('"'), 'one word of a kernel command line'),
      'such as `quiet` or `console=ttyS0`',
    ),
  ],
  hostattrs: (_known, word) => ({ kernelOptions: [word] }),
});

/** Modules are loaded at boot, by systemd-modules-load, from `/etc/modules-load.d/LIST.conf`. */
export function modules(list: string, names: readonly string[]): PropertyApplication {
  if (!/^[a-z0-9][a-z0-9-]*$/.test(list)) throw new TypeError(`"${list}" cannot be the name of a list of modules`);
  return eseq(
    wantsModules(names),
    hasContent(`/etc/modules-load.d/${list}.conf`, names.map((name) => `${name}\n`).join('')),
  );
}

const wantsModules = defineProperty<[names: readonly string[]]>({
  id: 'kernel.wantsModules',
  kind: 'posix',
  describe: (names) => `kernel modules: ${names.join(' ')}`,
  about: 'Kernel modules that an image has to carry. See kernel.modules(), which also has them loaded at boot.',
  args: [
    arg(
      'names',
      z.array(z.string().regex(/^[A-Za-z0-9_-]+$/, 'it cannot be the name of a kernel module')),
      'names of modules',
    ),
  ],
  hostattrs: (_known, names) => ({ kernelModules: names }),
});
