/** For tests: parts of an image from a few words. */
import type { ImageEntry } from './image-entry.ts';
import type { ImagePart } from './image-parts.ts';

/** `usr/`: a folder; `usr!`: one that hides what is below; `-usr/x`: a whiteout; `bin>usr/bin`: a link; `usr/x=12`: a file that takes 12 bytes. */
export function entryOf(words: string): ImageEntry {
  const content = (): Uint8Array => new Uint8Array(0);
  const common = { mode: 0o644, uid: 0, gid: 0, sizeBytes: 0, storedBytes: 0, content, storedDigest: () => words };
  if (words.startsWith('-')) return { ...common, path: words.slice(1), kind: 'character-device', device: [0, 0] };
  if (words.endsWith('/')) return { ...common, path: words.slice(0, -1), kind: 'directory' };
  if (words.endsWith('!')) return { ...common, path: words.slice(0, -1), kind: 'directory', opaque: true };
  const [link = '', target] = words.split('>');
  if (target !== undefined) return { ...common, path: link, kind: 'symlink', target };
  const [path = '', bytes = '1'] = words.split('=');
  return { ...common, path, kind: 'file', sizeBytes: Number(bytes) * 2, storedBytes: Number(bytes) };
}

/** Layers, the lowest first; each has an overhead of 10 bytes. */
export function layersOf(...layers: readonly (readonly string[])[]): ImagePart[] {
  return layers.map((words, layer) => {
    const entries = words.map(entryOf);
    const storedBytes = entries.reduce((sum, entry) => sum + entry.storedBytes, 10);
    const name = `layer ${layer + 1}`;
    return { name, kind: 'layer', layer, form: 'squashfs', sha256: name, storedBytes, overheadBytes: 10, entries };
  });
}
