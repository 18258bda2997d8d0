/** The hop `machined`: a container that runs and is registered with systemd-machined. Needs root. */
import { openInside } from './_inside.ts';
import { type Connection, type Hop, HopError, lines } from './connection.ts';

/**
 * Opens the inside of a registered container.
 *
 * @throws {HopError} when there is none of that name, or it is a virtual machine
 */
export async function openMachined(base: Connection, options: { readonly name: string }): Promise<Connection> {
  const { name } = options;
  const hop: Hop = ['machined', { name }];
  if (!/^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$/.test(name)) throw new HopError(hop, `"${name}" cannot be a name`);
  const shown = await base.run(['machinectl', 'show', name, '--property=Class', '--property=Leader'], {
    env: { LC_ALL: 'C' },
    okStatus: 'any',
    timeoutMs: 30_000,
  });
  if (shown.status !== 0) {
    throw new HopError(
      hop,
      Buffer.from(shown.stderr).toString('utf8').trim() || `machinectl ended with ${shown.status}`,
      {
        hint: 'See "machinectl list". Without systemd-machined, use "nsenter" with the process id of its init.',
      },
    );
  }
  const properties = new Map(
    lines(shown).map((line): [string, string] => [line.split('=')[0] ?? '', line.split('=')[1] ?? '']),
  );
  if (properties.get('Class') !== 'container') {
    throw new HopError(hop, `it is a ${properties.get('Class') ?? 'thing'} and not a container`, {
      hint: 'A virtual machine is reached over the network: use "ssh".',
    });
  }
  return await openInside(base, { hop, leader: Number(properties.get('Leader')) });
}
