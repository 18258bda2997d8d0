/** What is written down of an image when it is made. */
import { type ImageManifest, type ImagePackage } from '../manifests/image-manifest.ts';
import { definitionDigest } from '../properties/host-definition.ts';
import type { Inputs } from './build-inputs.ts';
import type { Packed } from './pack.ts';

/** The manifest of an image. */
export function manifestOf(inputs: Inputs, buildId: string, packed: Packed): ImageManifest {
  const { definition, lock, node } = inputs;
  const packages: readonly ImagePackage[] = lock.packages.map(({ name, version, architecture, sha256 }) => ({
    name,
    version,
    architecture,
    sha256,
  }));
  return {
    format: 1,
    buildId,
    host: definition.name,
    hostSha256: definitionDigest(definition),
    architecture: lock.architecture,
    base: { name: 'debian', version: debianVersion(packages), suite: definition.base.suite },
    kernelVersion: packed.kernelRelease,
    node: { version: node.version, sha256: node.sha256 },
    packages,
    files: packed.files,
    rootfsBytes: packed.rootfsBytes,
  };
}

/** The release's number: base-files has the point release as its version, such as `13.8+deb13u2`. */
function debianVersion(packages: readonly ImagePackage[]): string {
  const found = packages.find(({ name }) => name === 'base-files')?.version ?? '';
  return /^[0-9.]+/.exec(found)?.[0] ?? 'unknown';
}
