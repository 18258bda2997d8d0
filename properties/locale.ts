/** Language and time zone. C.UTF-8 is built into the C library; other languages need the package `locales`. */
import { z } from 'zod';
import { installed } from './apt.ts';
import { type Arg, arg, textThat } from './args.ts';
import { definePropertyList, onChange } from './combinators.ts';
import { hasContent, hasLines, symlink } from './file.ts';
import { NOTHING_TO_TAKE_BACK, type PropertyApplication, defineProperty } from './property.ts';

const LOCALE = /^[A-Za-z_]+(\.[A-Za-z0-9-]+)?(@[a-z]+)?$/;
const ZONE = /^[A-Za-z0-9_+-]+(\/[A-Za-z0-9_+-]+)*$/;

const NAME: Arg<string> = arg(
  'name',
  textThat((name) => LOCALE.test(name), 'a locale'),
  'such as C.UTF-8',
);

/** Programs speak this language, such as `C.UTF-8`. Others than C have to be generated before. */
export const is: (name: string) => PropertyApplication = definePropertyList<[name: string]>({
  id: 'locale.is',
  about:
    'Programs and services speak this language from the next login or boot on: /etc/locale.conf. Others than C have to be generated ' +
    'before, see locale.generated(). Unapplied: C.',
  example: ['C.UTF-8'],
  args: [NAME],
  describe: (name) => `the locale is ${name}`,
  // Debian's PAM reads the one, systemd the other.
  properties: (name) => [
    hasContent('/etc/locale.conf', `LANG=${name}\n`),
    symlink('/etc/default/locale', '../locale.conf'),
  ],
});

/** Locales are made from their sources. Unapplied: they are no longer made. */
export const generated: (names: readonly string[]) => PropertyApplication = definePropertyList<
  [names: readonly string[]]
>({
  id: 'locale.generated',
  about:
    'Locales are there, in UTF-8, made from their sources by the package locales. Unapplied: they are gone, and the package is.',
  example: [['de_DE.UTF-8', 'en_GB.UTF-8']],
  args: [
    arg(
      'names',
      z
        .array(textThat((name) => /^[a-z]{2,3}_[A-Z]{2}\.UTF-8(@[a-z]+)?$/.test(name), 'a locale such as de_DE.UTF-8'))
        .min(1, 'it must not be empty'),
      'such as de_DE.UTF-8',
    ),
  ],
  describe: (names) => `locales ${names.join(' ')}`,
  properties: (names) => [
    installed(['locales']),
    onChange(
      hasLines(
        '/etc/locale.gen',
        names.map((name) => `${name} UTF-8`),
      ),
      regenerated(),
    ),
  ],
});

/** The locales of /etc/locale.gen are made, each time that this is applied. */
export const regenerated: () => PropertyApplication = defineProperty<[]>({
  id: 'locale.regenerated',
  kind: 'posix',
  ...NOTHING_TO_TAKE_BACK,
  about:
    'The locales of /etc/locale.gen are made, each time that this is applied. locale.generated() does this by itself. Unapplied: nothing.',
  example: [],
  args: [],
  describe: () => 'locales are made from their sources',
  apply: async (host) => void (await host.run(['locale-gen'])),
});

/** The time zone, such as `Etc/UTC`. */
export const timezone: (name: string) => PropertyApplication = definePropertyList<[name: string]>({
  id: 'locale.timezone',
  about: 'The time zone: /etc/localtime. Programs that run keep theirs. Unapplied: UTC.',
  example: ['Europe/Berlin'],
  args: [
    arg(
      'name',
      textThat((name) => ZONE.test(name), 'a time zone'),
      'a path below /usr/share/zoneinfo',
    ),
  ],
  describe: (name) => `the time zone is ${name}`,
  properties: (name) => [symlink('/etc/localtime', `/usr/share/zoneinfo/${name}`)],
});
