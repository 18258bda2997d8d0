/** The control file of a Debian package (deb-control(5)): `Name: value`, and lines that begin with a space go on. */

/** Fields by name, as written; the lines of a folded value are joined by newlines. */
export type ControlFields = Readonly<Record<string, string | undefined>>;

/** Reads one stanza; lines of another form are left out. */
export function parseControl(text: string): ControlFields {
  const fields: Record<string, string> = {};
  let last: string | undefined;
  for (const line of text.split('\n')) {
    const [, name, value = ''] = /^([A-Za-z0-9-]+):\s*(.*)$/.exec(line) ?? [];
    if (name !== undefined) fields[(last = name)] = value.trimEnd();
    else if (last !== undefined && /^\s/.test(line)) fields[last] += `\n${line.trim()}`;
  }
  return fields;
}
