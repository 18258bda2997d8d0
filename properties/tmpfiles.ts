/** Files and directories made at boot by systemd-tmpfiles. */
import { z } from 'zod';
import { arg, textThat } from './args.ts';
import { definePropertyList } from './combinators.ts';
import { hasContent } from './file.ts';
import type { PropertyApplication } from './property.ts';

const NAME = textThat((name) => /^[a-z0-9][a-z0-9.-]*$/.test(name), 'lower case letters, digits, "." and "-"');

const RULE = z
  .string()
  .regex(/^[A-Za-z][!+=~^$-]*\s+\/\S*(\s[^\n]*)?$/, 'it is not a rule such as "d /run/example 0755 root root -"');

/** The rules of `/etc/tmpfiles.d/NAME.conf`, such as `d /run/example 0755 build build -`. */
export const rules: (name: string, lines: readonly string[]) => PropertyApplication = definePropertyList<
  [name: string, lines: readonly string[]]
>({
  id: 'tmpfiles.rules',
  about:
    'The rules of /etc/tmpfiles.d/NAME.conf (tmpfiles.d(5)), made at each boot. Unapplied: the rules go away, what they made stays.',
  example: ['example', ['d /run/example 0755 root root -']],
  args: [arg('name', NAME, 'name of the file'), arg('lines', z.array(RULE), 'one rule each')],
  describe: (name) => `temporary files ${name}`,
  properties: (name, lines) => [hasContent(`/etc/tmpfiles.d/${name}.conf`, lines.map((line) => `${line}\n`).join(''))],
});

/** One rule in a file of its own. */
export function rule(name: string, line: string): PropertyApplication {
  return rules(name, [line]);
}
