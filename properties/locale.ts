/** Language and time zone, without the package `locales`: C.UTF-8 is built into the C library. */
import { arg, textThat } from './args.ts';
import { definePropertyList } from './combinators.ts';
import { hasContent, symlink } from './file.ts';
import type { PropertyApplication } from './property.ts';

const LOCALE = /^[A-Za-z_]+(\.[A-Za-z0-9-]+)?(@[a-z]+)?$/;
const ZONE = /^[A-Za-z0-9_+-]+(\/[A-Za-z0-9_+-]+)*$/;

/** Programs speak this language, such as `C.UTF-8`. Others than C need the package that has them. */
export const is: (name: string) => PropertyApplication = definePropertyList<[name: string]>({
  id: 'locale.is',
  about: 'Programs speak this language, such as C.UTF-8. Others than C need the package that has them.',
  args: [
    arg(
      'name',
      textThat((name) => LOCALE.test(name), 'a locale'),
      'such as C.UTF-8',
    ),
  ],
  describe: (name) => `the locale is ${name}`,
  properties: (name) => [hasContent('/etc/default/locale', `LANG=${name}\n`)],
});

/** The time zone, such as `Etc/UTC`. */
export const timezone: (name: string) => PropertyApplication = definePropertyList<[name: string]>({
  id: 'locale.timezone',
  about: 'The time zone, such as Etc/UTC.',
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
