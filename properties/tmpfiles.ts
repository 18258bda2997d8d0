/** Files and directories made at boot by systemd-tmpfiles. */
import { hasContent } from './file.ts';
import type { PropertyApplication } from './property.ts';

/**
 * The rules of `/etc/tmpfiles.d/NAME.conf`, such as `d /run/example 0755 build build -`.
 *
 * @throws {TypeError} for what is no rule (tmpfiles.d(5))
 */
export function rules(name: string, lines: readonly string[]): PropertyApplication {
  if (!/^[a-z0-9][a-z0-9.-]*$/.test(name)) throw new TypeError(`"${name}" cannot be the name of a list of rules`);
  const wrong = lines.find((line) => !/^[A-Za-z][!+=~^$-]*\s+\/\S*(\s[^\n]*)?$/.test(line));
  if (wrong !== undefined) throw new TypeError(`"${wrong}" is not a rule such as "d /run/example 0755 root root -"`);
  return hasContent(`/etc/tmpfiles.d/${name}.conf`, lines.map((line) => `${line}\n`).join(''));
}

/** One rule in a file of its own. */
export function rule(name: string, line: string): PropertyApplication {
  return rules(name, [line]);
}
