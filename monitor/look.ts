/** Looks at what is published for this host, and checks it whole before the host reboots for it. */
import type { HostJson } from '../host/host-json.ts';
import { parseBuildId } from '../manifests/build-id.ts';
import { FILE_LIMITS, type FetchLimits, TEXT_LIMITS, fetchText } from './fetch.ts';
import { checkImage, checkToolchain } from './published.ts';
import type { Found } from './state.ts';
import { listIdOf, troubleOf } from './toolchain.ts';

/** What is looked at: `image`, or `toolchain <tc>`. */
type Subject = string;

/** The ids of all that the host watches, or why there is none. Signatures are looked at when there is a change. */
export async function lookAtAll(host: HostJson, signal: AbortSignal): Promise<Readonly<Record<Subject, Found>>> {
  const found: Record<Subject, Found> = {};
  const { buildidUrl, toolchains } = host.options;
  const look = async (subject: Subject, read: () => Promise<string>): Promise<void> => {
    try {
      found[subject] = { kind: 'id', id: await read() };
    } catch (error) {
      signal.throwIfAborted();
      found[subject] = { kind: 'unreachable', error: troubleOf(error).error };
    }
  };
  const limits: FetchLimits = { ...TEXT_LIMITS, tries: 2 };
  if (buildidUrl !== undefined) {
    const idLimits = { ...limits, maxBytes: 4096 };
    await look('image', async () => parseBuildId(await fetchText(buildidUrl, idLimits, signal), { name: buildidUrl }));
  }
  for (const [name, { url }] of Object.entries(toolchains)) {
    if (url === undefined) continue;
    await look(`toolchain ${name}`, async () => listIdOf(await fetchText(url, limits, signal)));
  }
  return found;
}

/**
 * Checks the targets of a reboot, and the image whatever they are: a reboot for a toolchain goes through the boot path as
 * well.
 *
 * @param targets - of `targetsOf()`
 * @throws when something is not published whole, or not signed as it has to be
 */
export async function checkTargets(targets: readonly string[], host: HostJson, signal: AbortSignal): Promise<void> {
  const { buildidUrl, buildidTrust, toolchains } = host.options;
  const limits = { text: TEXT_LIMITS, file: FILE_LIMITS };
  // Before the image, which is large: whoever may write a list, but not sign it, has nothing large fetched.
  for (const target of targets) {
    const [kind, name, id] = target.split(' ');
    const { url, trust } = toolchains[name ?? ''] ?? {};
    if (kind === 'toolchain' && url !== undefined) await checkToolchain({ url, trust }, id ?? '', limits, signal);
  }
  if (buildidUrl !== undefined) {
    const image = targets.find((target) => target.startsWith('image '))?.slice('image '.length);
    await checkImage({ url: buildidUrl, trust: buildidTrust }, image ?? host.buildId, limits, signal);
  }
}
