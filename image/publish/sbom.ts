/** `buildos-sbom.spdx.json`: what an image is made of, as SPDX 2.3 (ISO/IEC 5962), from its manifest. */
import type { ImageManifest, ImagePackage } from '../../manifests/image-manifest.ts';

/** A package or program in the SPDX form (clause 7). */
interface SpdxPackage {
  readonly SPDXID: string;
  readonly name: string;
  readonly versionInfo: string;
  readonly supplier: string;
  readonly downloadLocation: string;
  readonly filesAnalyzed: false;
  readonly licenseConcluded: 'NOASSERTION';
  readonly licenseDeclared: 'NOASSERTION';
  readonly copyrightText: 'NOASSERTION';
  readonly checksums?: readonly { readonly algorithm: 'SHA256'; readonly checksumValue: string }[];
  readonly externalRefs?: readonly {
    readonly referenceCategory: 'PACKAGE-MANAGER';
    readonly referenceType: 'purl';
    readonly referenceLocator: string;
  }[];
}

const IMAGE_ID = 'SPDXRef-image';

/**
 * Writes the bill of materials.
 *
 * @param created - when, for `creationInfo`; all else follows from the manifest
 */
export function formatSbom(manifest: ImageManifest, created: Date): string {
  const contained = [nodePackage(manifest), ...manifest.packages.map((each) => debianPackage(manifest, each))];
  const document = {
    spdxVersion: 'SPDX-2.3',
    dataLicense: 'CC0-1.0',
    SPDXID: 'SPDXRef-DOCUMENT',
    name: `buildos-${manifest.host}-${manifest.buildId}`,
    documentNamespace: `urn:buildos:image:${manifest.buildId}`,
    creationInfo: { created: created.toISOString().replace(/\.\d+Z$/, 'Z'), creators: ['Tool: buildos'] },
    packages: [imagePackage(manifest), ...contained],
    relationships: [
      relation('SPDXRef-DOCUMENT', 'DESCRIBES', IMAGE_ID),
      ...contained.map((each) => relation(IMAGE_ID, 'CONTAINS', each.SPDXID)),
    ],
  };
  return `${JSON.stringify(document, undefined, 2)}\n`;
}

function imagePackage(manifest: ImageManifest): SpdxPackage {
  return { ...packageOf(IMAGE_ID, `buildos-${manifest.host}`, manifest.buildId), supplier: 'NOASSERTION' };
}

function nodePackage({ node }: ImageManifest): SpdxPackage {
  return {
    ...packageOf('SPDXRef-node', 'node', node.version.replace(/^v/, '')),
    supplier: 'Organization: OpenJS Foundation',
    checksums: [{ algorithm: 'SHA256', checksumValue: node.sha256 }],
    externalRefs: [purl(`pkg:generic/node@${node.version.replace(/^v/, '')}`)],
  };
}

function debianPackage({ base }: ImageManifest, { name, version, architecture, sha256 }: ImagePackage): SpdxPackage {
  const locator = `pkg:deb/debian/${name}@${encodeURIComponent(version)}?arch=${architecture}&distro=${base.suite}`;
  return {
    // Letters, digits, "." and "-" only (clause 3.2); a "+" is the one other character of Debian's names.
    ...packageOf(`SPDXRef-deb-${name.replaceAll('+', '.plus.')}-${architecture}`, name, version),
    supplier: 'Organization: Debian',
    ...(sha256 !== undefined && { checksums: [{ algorithm: 'SHA256', checksumValue: sha256 }] }),
    externalRefs: [purl(locator)],
  };
}

function packageOf(id: string, name: string, version: string): Omit<SpdxPackage, 'supplier'> {
  return {
    SPDXID: id,
    name,
    versionInfo: version,
    downloadLocation: 'NOASSERTION',
    filesAnalyzed: false,
    licenseConcluded: 'NOASSERTION',
    licenseDeclared: 'NOASSERTION',
    copyrightText: 'NOASSERTION',
  };
}

function purl(locator: string): NonNullable<SpdxPackage['externalRefs']>[number] {
  return { referenceCategory: 'PACKAGE-MANAGER', referenceType: 'purl', referenceLocator: locator };
}

function relation(from: string, type: 'CONTAINS' | 'DESCRIBES', to: string): object {
  return { spdxElementId: from, relationshipType: type, relatedSpdxElement: to };
}
