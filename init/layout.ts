/**
 * Where things are during stage 1. The initramfs is packed by `image/initrd.ts`; what it must hold:
 *
 * ```
 *   /init                    the bundle of main.ts, 0755, starts with `#!/bin/node`. The kernel runs it through its own
 *                            script loader (binfmt_script is built in). One file, no wrapper: a shell in front would have
 *                            to be waited for, and flags are of no use (none that was tried makes Node start faster).
 *   /package.json            {"type":"module"}: a file without suffix is else CommonJS for Node
 *   /bin/node                stripped, with its libraries in /lib and its loader where the binary wants it
 *   /bin/busybox             static: mount, insmod, switch_root, the rescue shell
 *   /modules/load            names of the files beside it, one a line, in the order to load them
 *   /buildos/payload.json    see {@link Payload}; in the same segment as init
 *   /buildos/layer-1.squashfs …   last, so that a file cut short on its way still holds all that is needed to say so
 *   /dev/console             c 5 1: stdin, stdout and stderr of PID 1
 *   /dev/null                c 1 3: what Node opens when there is no console at all; it aborts if it cannot
 * ```
 */

export const BUSYBOX = '/bin/busybox';
export const NODE = '/bin/node';
export const MODULES = '/modules';
export const MODULE_LIST = '/modules/load';
/** The folder with the layers of the root. */
export const LAYERS = '/buildos';
export const PAYLOAD_JSON = '/buildos/payload.json';
/** The read-only layers of the root, `-1` the lowest; and the tmpfs with what is written above them. */
export const LOWER = '/overlay/lower';
export const UPPER = '/overlay/upper';
/** Where both are put together, and what becomes `/`. */
export const NEWROOT = '/newroot';
/** An empty file in the image; the initramfs's Node is bound over it. */
export const IMAGE_NODE = '/usr/lib/buildos/node';

/** /buildos/payload.json: what the root must be made of, the lowest layer first. */
export interface Payload {
  readonly buildId: string;
  readonly layers: readonly Layer[];
}

/** A squashfs in {@link LAYERS}. */
export interface Layer {
  readonly name: string;
  readonly size: number;
  readonly sha256: string;
}
