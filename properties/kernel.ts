/** What the kernel is told and loads at boot. */
import { z } from 'zod';
import { type Arg, arg, textThat } from './args.ts';
import { definePropertyList } from './combinators.ts';
import { hasContent } from './file.ts';
import { KERNEL_CLASSES, type KernelClass } from './kernel-classes.ts';
import {
  type HostReader,
  InapplicablePropertyError,
  NOTHING_TO_TAKE_BACK,
  type PropertyApplication,
  defineProperty,
} from './property.ts';

/** A word on the kernel command line, such as `quiet` or `console=ttyS0`. The image carries it; nothing is done on the host. */
export const option: (word: string) => PropertyApplication = defineProperty<[word: string]>({
  id: 'kernel.option',
  kind: 'posix',
  describe: (word) => `kernel option ${word}`,
  about:
    'A word on the kernel command line. The boot configurations of the image carry it; on a host that runs nothing is done.',
  example: ['console=ttyS0,115200'],
  args: [
    arg(
      'word',
      textThat((word) => /^[!-~]+$/.test(word) && !word.includes('"'), 'one word of a kernel command line'),
      'such as `quiet` or `console=ttyS0`',
    ),
  ],
  hostattrs: (_known, word) => ({ kernelOptions: [word] }),
});

/** An image carries the kernel modules for these uses, besides those of the hardware that it is built for. */
export const supports: (classes: readonly KernelClass[]) => PropertyApplication = defineProperty<
  [classes: readonly KernelClass[]]
>({
  id: 'kernel.supports',
  kind: 'posix',
  describe: (classes) => `the kernel supports ${classes.join(', ')}`,
  about:
    'An image carries the kernel modules for these uses. It has those of the hardware that it is built for (image build --hardware), ' +
    'and those that kernel.modules() and kernel.wantsModules() name, without. ' +
    `${KERNEL_CLASSES.map(({ name, summary }) => `${name}: ${summary}`).join('. ')}. ` +
    'mount.at() asks for what its file system needs. On a host with its distribution’s kernel package nothing is done.',
  example: [['containers', 'filesystems']],
  args: [
    arg(
      'classes',
      z.array(z.enum(KERNEL_CLASSES.map(({ name }) => name))).min(1, 'it must not be empty'),
      'what the kernel is used for',
    ),
  ],
  hostattrs: (_known, classes) => ({ kernelClasses: classes }),
});

const LIST: Arg<string> = arg(
  'list',
  textThat((list) => /^[a-z0-9][a-z0-9-]*$/.test(list), 'lower case letters, digits and "-"'),
  'name of the file',
);

const MODULE = z.string().regex(/^[A-Za-z0-9_-]+$/, 'it cannot be the name of a kernel module');

const MODULES: Arg<readonly string[]> = arg(
  'names',
  z.array(MODULE).min(1, 'it must not be empty'),
  'names of modules',
);

/** Modules are loaded at boot, by systemd-modules-load, from `/etc/modules-load.d/LIST.conf`, and now on a host of its own. */
export const modules: (list: string, names: readonly string[]) => PropertyApplication = definePropertyList<
  [list: string, names: readonly string[]]
>({
  id: 'kernel.modules',
  about:
    'Modules are loaded at boot, by systemd-modules-load, from /etc/modules-load.d/LIST.conf, and now on a host with a kernel of its ' +
    'own. An image carries them. Unapplied: they are not loaded at the next boot.',
  example: ['containers', ['overlay', 'br_netfilter']],
  args: [LIST, MODULES],
  describe: (_list, names) => `kernel modules loaded at boot: ${names.join(' ')}`,
  properties: (list, names) => [
    wantsModules(names),
    hasContent(`/etc/modules-load.d/${list}.conf`, names.map((name) => `${name}\n`).join('')),
    loaded(names),
  ],
});

/** Kernel modules that an image has to carry. */
export const wantsModules: (names: readonly string[]) => PropertyApplication = defineProperty<
  [names: readonly string[]]
>({
  id: 'kernel.wantsModules',
  kind: 'posix',
  describe: (names) => `kernel modules: ${names.join(' ')}`,
  about:
    'Kernel modules that an image has to carry, by name; what they depend on comes with them. See kernel.modules(), which also has ' +
    'them loaded at boot, and kernel.supports() for whole classes.',
  example: [['overlay']],
  args: [MODULES],
  hostattrs: (known, names) => {
    const clash = names.find((name) => known.kernelModulesBlocked.includes(name));
    if (clash !== undefined) throw bothWays(known.name, clash);
    return { kernelModules: names };
  },
});

/** Modules are loaded now, on a host with a kernel of its own. Unapplied: they stay until the next boot. */
export const loaded: (names: readonly string[]) => PropertyApplication = defineProperty<[names: readonly string[]]>({
  id: 'kernel.loaded',
  kind: 'posix',
  ...NOTHING_TO_TAKE_BACK,
  touches: 'own-files',
  describe: (names) => `kernel modules loaded now: ${names.join(' ')}`,
  about:
    'Modules are loaded now, on a host with a kernel of its own; inside of an image or container nothing happens. Unapplied: they stay ' +
    'until the next boot. See kernel.modules(), which also has them loaded at boot.',
  example: [['overlay']],
  args: [MODULES],
  manages: (names) => names.map((name) => `module ${name}`),
  facts: (names) => names.map((name) => ({ fact: 'file', path: modulePath(name) })),
  check: async (host, names) => names.every((name) => isLoaded(host, name)) || !(await hasKernel(host)),
  plan: (host, names) => names.filter((name) => !isLoaded(host, name)).map((name) => `load ${name}`),
  apply: async (host, names) => void (await host.run(['modprobe', '--all', '--', ...names])),
});

/** Modules that are not loaded by themselves when their hardware is found. Unapplied: they are. */
export const blocked: (list: string, names: readonly string[]) => PropertyApplication = definePropertyList<
  [list: string, names: readonly string[]]
>({
  id: 'kernel.blocked',
  about:
    'Modules are not loaded by themselves when their hardware is found, from the next boot on: `blacklist` in ' +
    '/etc/modprobe.d/LIST.conf. Unapplied: they are.',
  example: ['no-sound', ['snd_hda_intel']],
  args: [LIST, MODULES],
  describe: (_list, names) => `kernel modules not loaded: ${names.join(' ')}`,
  properties: (list, names) => [
    unwantsModules(names),
    hasContent(`/etc/modprobe.d/${list}.conf`, names.map((name) => `blacklist ${name}\n`).join('')),
  ],
});

/** Kernel modules that the host shall not have: a static fact. */
export const unwantsModules: (names: readonly string[]) => PropertyApplication = defineProperty<
  [names: readonly string[]]
>({
  id: 'kernel.unwantsModules',
  kind: 'posix',
  describe: (names) => `not wanted: kernel modules ${names.join(' ')}`,
  about: 'Kernel modules that no other property may want. See kernel.blocked(), which also writes it down.',
  example: [['snd_hda_intel']],
  args: [MODULES],
  hostattrs: (known, names) => {
    const clash = names.find((name) => known.kernelModules.includes(name));
    if (clash !== undefined) throw bothWays(known.name, clash);
    return { kernelModulesBlocked: names };
  },
});

/** Parameters of modules, by module. */
export type ModuleOptions = Readonly<Record<string, string>>;

/** Modules have these parameters when they are loaded. Unapplied: they have their own. */
export const moduleOptions: (list: string, options: ModuleOptions) => PropertyApplication = definePropertyList<
  [list: string, options: ModuleOptions]
>({
  id: 'kernel.moduleOptions',
  about:
    'Modules have these parameters when they are loaded the next time: `options` in /etc/modprobe.d/LIST.conf. Unapplied: they have ' +
    'their own.',
  example: ['kvm', { kvm_intel: 'nested=1' }],
  args: [
    LIST,
    arg(
      'options',
      z.record(MODULE, z.string().regex(/^[!-~]+( [!-~]+)*$/, 'it must be words')),
      'parameters by module',
    ),
  ],
  describe: (_list, options) => `parameters of kernel modules: ${Object.keys(options).join(' ')}`,
  properties: (list, options) => [
    hasContent(
      `/etc/modprobe.d/${list}.conf`,
      Object.entries(options)
        .map(([name, words]) => `options ${name} ${words}\n`)
        .join(''),
    ),
  ],
});

/** The kernel writes `_` for `-`. */
const modulePath = (name: string): string => `/sys/module/${name.replaceAll('-', '_')}`;

const isLoaded = (host: HostReader, name: string): boolean => host.facts.file(modulePath(name)) !== undefined;

const hasKernel = async (host: HostReader): Promise<boolean> => (await host.isLive()) && !(await host.isContained());

const bothWays = (host: string, name: string): InapplicablePropertyError =>
  new InapplicablePropertyError(`"${host}" wants kernel module "${name}" both loaded and blocked`);
