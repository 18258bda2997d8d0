/** Why something is in an image: the origins that were noted while it was made, for every entry of every part. */
import { matchesGlob } from 'node:path';
import type { Contents, Origin } from '../trace.ts';
import type { ImagePart } from './image-parts.ts';

/** What else is known of an image. */
export interface OriginFacts {
  readonly contents: Contents;
  /** Such as `6.12.48+deb13-amd64`. */
  readonly kernelVersion: string;
  readonly nodeVersion: string;
}

/** Where Debian has what stage 1 has elsewhere. */
const MULTIARCH = 'usr/lib/x86_64-linux-gnu';

const INDEX = /^usr\/lib\/modules\/[^/]+\/modules\.[a-z.]+$/;

const step = (name: string): readonly Origin[] => [{ kind: 'step', name }];

/** Answers where things come from. */
export class Origins {
  readonly #facts: OriginFacts;
  readonly #layers: readonly ReadonlyMap<string, readonly Origin[]>[];

  constructor(facts: OriginFacts) {
    this.#facts = facts;
    this.#layers = facts.contents.layers.map(({ origins }) => {
      const byPath = new Map<string, Origin[]>();
      for (const { origin, paths } of origins) {
        for (const path of paths) {
          const known = byPath.get(path);
          if (known === undefined) byPath.set(path, [origin]);
          else known.push(origin);
        }
      }
      return byPath;
    });
  }

  /** Of an entry of the image; empty: nobody knows, which is a fault of the record. The last one has had the last word. */
  of(part: Pick<ImagePart, 'kind' | 'layer'>, path: string): readonly Origin[] {
    switch (part.kind) {
      case 'kernel':
        return this.inLayer(0, `boot/vmlinuz-${this.#facts.kernelVersion}`);
      case 'initrd':
        return this.#ofStage1(path);
      case 'layer':
        return path === '' ? step('the root itself') : this.inLayer(part.layer ?? 0, path);
      default:
        return part.kind satisfies never;
    }
  }

  /** Of a path in a layer, whether it was packed or left out. */
  inLayer(layer: number, path: string): readonly Origin[] {
    const paths = this.#layers[layer];
    // Made when the modules to keep are chosen, also where the package has none.
    if (layer === 0 && INDEX.test(path) && !paths?.has(path)) return step('index of kernel modules (depmod)');
    // Modules are unpacked when the image is; in the package they are `.ko.xz`.
    return (
      paths?.get(path) ?? (path.endsWith('.ko') ? (paths?.get(`${path}.xz`) ?? paths?.get(`${path}.zst`)) : []) ?? []
    );
  }

  get layers(): number {
    return this.#layers.length;
  }

  #ofStage1(path: string): readonly Origin[] {
    const name = path.slice(path.lastIndexOf('/') + 1);
    if (path === 'node/node') return step(`Node ${this.#facts.nodeVersion}, stripped`);
    if (path === 'main.mjs') return step('our init (init/main.ts, bundled)');
    if (path === 'bin/busybox') return this.inLayer(0, 'usr/bin/busybox');
    if (path.startsWith('lib64/')) return this.inLayer(0, `usr/${path}`);
    if (path.startsWith('lib/')) return this.inLayer(0, `${MULTIARCH}/${name}`);
    if (path.startsWith('modules/') && name.endsWith('.ko')) return this.#ofModule(name);
    return step('what stage 1 needs besides (image/initrd.ts)');
  }

  #ofModule(name: string): readonly Origin[] {
    const wanted = name.replaceAll('-', '_');
    for (const [path, origins] of this.#layers[0] ?? []) {
      if (!path.startsWith('usr/lib/modules/')) continue;
      const file = path.slice(path.lastIndexOf('/') + 1).replace(/\.(xz|zst)$/, '');
      if (file.replaceAll('-', '_') === wanted) return origins;
    }
    return [];
  }
}

/** An origin as a phrase: `package less 668-1`, `property /etc/hostname has …`. */
export function describeOrigin(origin: Origin): string {
  switch (origin.kind) {
    case 'package': {
      const how = {
        shipped: '',
        alternative: ', as an alternative',
        link: ', by a link that leads to a file of it',
        script: ', made when it is installed',
        folder: ', made in a folder of it',
      }[origin.how];
      return `package ${origin.name} ${origin.version}${how}`;
    }
    case 'property':
      return `property ${origin.p}: ${origin.description}`;
    case 'step':
      return `our step: ${origin.name}`;
    default:
      return origin satisfies never;
  }
}

/**
 * The pattern that left a path out, if one did: of the path or of a folder that it is in.
 *
 * @param path - without the first slash
 */
export function findExclude(path: string, patterns: readonly string[]): string | undefined {
  const parts = path.split('/');
  const prefixes = parts.map((_, index) => parts.slice(0, index + 1).join('/'));
  return patterns.find((pattern) => prefixes.some((prefix) => matchesGlob(prefix, pattern)));
}
