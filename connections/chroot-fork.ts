/**
 * The hop `chroot.fork`: an agent of ours in a root below this one. Code from outside, files from inside: it works in an
 * empty directory too.
 *
 * Node cannot fork into a chroot, so another is started there: its binary, loader and libraries are bound, read-only,
 * into a folder on the tmpfs on /run (_chroot.ts), and the loader starts it with nothing but a PATH in its environment. The bundle comes
 * over stdin, ahead of the frames: it is in no file. Mount points that the root lacks (proc, sys, dev, run, tmp) are made,
 * and stay.
 *
 * The root has its mounts for as long as the connection lives. With `network`, /etc/resolv.conf is ours all that time,
 * also for readFile, and cannot be replaced; so that is not the default.
 */
import { startAgent } from './_agent.ts';
import {
  type ChrootOptions,
  ENVIRONMENT,
  FILES_FOLDER,
  checkChroot,
  chrootArguments,
  enterChroot,
  throwSetupError,
} from './_chroot.ts';
import { HAS_SERVICES, setAttribute } from './attributes.ts';
import { type Connection, type Hop, type NodeRuntime, HopError } from './connection.ts';
import { LOADER } from './native.ts';

/**
 * Opens a chroot with an agent in it.
 *
 * @param name - how the hop was called
 * @throws {HopError} when the base is not native, the root is not a directory, or we are not root
 */
export async function openChrootFork(
  base: Connection,
  options: ChrootOptions,
  name = 'chroot.fork',
): Promise<Connection> {
  const hop: Hop = [name, chrootArguments(options)];
  const { native } = base;
  if (native?.agent === undefined) {
    throw new HopError(hop, 'it needs our JavaScript, and here is a shell only', {
      hint: 'Use "chroot.shell", or put the hop "agent" before it.',
    });
  }
  await checkChroot(base, hop, options);
  const outside = await native.runtime();
  const connection = await startAgent({
    hop,
    base,
    agent: native.agent,
    runtime: runtimeIn(FILES_FOLDER, outside),
    wrap: (node) => [
      ...enterChroot(options, { resolv: options.network === true ? 'yes' : 'no', files: outside.files }),
      'env',
      '-i',
      'PATH=/usr/sbin:/usr/bin:/sbin:/bin',
      'chroot',
      '--',
      '.',
      ...node,
    ],
    config: { env: ENVIRONMENT },
    examine: (ended) => throwSetupError(hop, ended),
  });
  setAttribute(connection, HAS_SERVICES, false);
  return connection;
}

/** A runtime as it is in a folder that holds nothing else. */
export function runtimeIn(folder: string, { files, arch }: NodeRuntime): NodeRuntime {
  return {
    argv: [`${folder}/${LOADER}`, '--library-path', folder, `${folder}/node`],
    files: files.map(({ name }) => ({ name, path: `${folder}/${name}` })),
    arch,
  };
}
