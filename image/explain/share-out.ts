/** Something indivisible shared out: bytes of a compressed block among the files in it. */

/**
 * Shares out a whole number in proportion to weights, so that the shares add up to it exactly.
 *
 * @param weights - 0 or more; when all are 0, the last one gets everything
 * @returns whole numbers, one for each weight
 */
export function shareOut(total: number, weights: readonly number[]): number[] {
  const sum = weights.reduce((all, weight) => all + weight, 0);
  let [weighed, given] = [0, 0];
  return weights.map((weight, index) => {
    weighed += weight;
    const upTo = index === weights.length - 1 ? total : Math.round(sum === 0 ? 0 : (total * weighed) / sum);
    const share = upTo - given;
    given = upTo;
    return share;
  });
}
