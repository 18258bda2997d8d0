/** What the kernel is told and loads at boot. */
import { z } from 'zod';
import { arg, textThat } from './args.ts';
import { definePropertyList } from './combinators.ts';
import { hasContent } from './file.ts';
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

const LIST = textThat((list) => /^[a-z0-9][a-z0-9-]*$/.test(list), 'lower case letters, digits and "-"');

const MODULES = z.array(z.string().regex(/^[A-Za-z0-9_-]+$/, 'it cannot be the name of a kernel module'));

/** Modules are loaded at boot, by systemd-modules-load, from `/etc/modules-load.d/LIST.conf`. */
export const modules: (list: string, names: readonly string[]) => PropertyApplication = definePropertyList<
  [list: string, names: readonly string[]]
>({
  id: 'kernel.modules',
  about: 'Modules are loaded at boot, by systemd-modules-load, from /etc/modules-load.d/LIST.conf.',
  args: [arg('list', LIST, 'name of the file'), arg('names', MODULES, 'names of modules')],
  describe: (_list, names) => `kernel modules loaded at boot: ${names.join(' ')}`,
  properties: (list, names) => [
    wantsModules(names),
    hasContent(`/etc/modules-load.d/${list}.conf`, names.map((name) => `${name}\n`).join('')),
  ],
});

const wantsModules = defineProperty<[names: readonly string[]]>({
  id: 'kernel.wantsModules',
  kind: 'posix',
  describe: (names) => `kernel modules: ${names.join(' ')}`,
  about: 'Kernel modules that an image has to carry. See kernel.modules(), which also has them loaded at boot.',
  args: [arg('names', MODULES, 'names of modules')],
  hostattrs: (_known, names) => ({ kernelModules: names }),
});
