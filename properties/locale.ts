/** Language and time zone, without the package `locales`: C.UTF-8 is built into the C library. */
import { hasContent, symlink } from './file.ts';
import type { PropertyApplication } from './property.ts';

/** Programs speak this language, such as `C.UTF-8`. Others than C need the package that has them. */
export function is(name: string): PropertyApplication {
  if (!/^[A-Za-z_]+(\.[A-Za-z0-9-]+)?(@[a-z]+)?$/.test(name)) throw new TypeError(`"${name}" cannot be a locale`);
  return hasContent('/etc/default/locale', `LANG=${name}\n`);
}

/** The time zone, such as `Etc/UTC`. */
export function timezone(name: string): PropertyApplication {
  if (!/^[A-Za-z0-9_+-]+(\/[A-Za-z0-9_+-]+)*$/.test(name)) throw new TypeError(`"${name}" cannot be a time zone`);
  return symlink('/etc/localtime', `/usr/share/zoneinfo/${name}`);
}
