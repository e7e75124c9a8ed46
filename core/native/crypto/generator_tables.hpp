// Odd multiples 1, 3, ..., 63 of the generators of secp256k1 and P-256, for wNAF of width 7. Computed from the curves'
// parameters; tests/unit/core/test_crypto_curves.py computes them again. A CPU makes itself longer tables at first use.
#pragma once

#include "core/native/crypto/curve.hpp"

namespace warpgrid {

constexpr u32 GENERATOR_WIDTH = 7;

// Coordinates as plain limbs: {x, y}.
struct GeneratorMultiple {
    u64 x[4], y[4];
};

// Entry for digit d (not 0) of a table of odd multiples of a generator.
template <class F>
WG_FN Affine<F> generator_entry(const GeneratorMultiple (&table)[32], i32 d) {
    const GeneratorMultiple& entry = table[(d > 0 ? d : -d) >> 1];
    Affine<F> point;
    WG_UNROLL
    for (u32 i = 0; i < 4; ++i) {
        point.x.w[i] = entry.x[i];
        point.y.w[i] = entry.y[i];
    }
    if (d < 0) point.y = -point.y;
    return point;
}

// The odd multiples that a double multiplication takes of a curve's generator: on a GPU those of the table here, on a
// CPU eight times as many, made from its first entry at first use.
template <class F, CurveA A>
struct GeneratorMultiples {
#if WG_ON_DEVICE
    static constexpr u32 WIDTH = GENERATOR_WIDTH;
    using Digit = i8;
    const GeneratorMultiple (&entries)[32];

    WG_FN explicit GeneratorMultiples(const GeneratorMultiple (&table)[32]) : entries(table) {}
    WG_FN Affine<F> at(i32 d) const { return generator_entry<F>(entries, d); }
#else
    static constexpr u32 WIDTH = GENERATOR_WIDTH + 3;
    using Digit = i16;
    struct Entries {
        Affine<F> multiple[1u << (WIDTH - 2)];
    };
    const Entries& entries;

    WG_FN explicit GeneratorMultiples(const GeneratorMultiple (&table)[32]) : entries(made_once(table)) {}
    WG_FN Affine<F> at(i32 d) const { return signed_entry(entries.multiple, d); }

   private:
    static WG_NOINLINE const Entries& made_once(const GeneratorMultiple (&table)[32]) {
        static const Entries made = [&] {
            Entries all;
            odd_multiples<A>(all.multiple, generator_entry<F>(table, 1));
            return all;
        }();
        return made;
    }
#endif
};

WG_CONSTANT GeneratorMultiple SECP256K1_GENERATOR[32] = {
    {{0x59f2815b16f81798ull, 0x029bfcdb2dce28d9ull, 0x55a06295ce870b07ull, 0x79be667ef9dcbbacull},
     {0x9c47d08ffb10d4b8ull, 0xfd17b448a6855419ull, 0x5da4fbfc0e1108a8ull, 0x483ada7726a3c465ull}},
    {{0x8601f113bce036f9ull, 0xb531c845836f99b0ull, 0x49344f85f89d5229ull, 0xf9308a019258c310ull},
     {0x6cb9fd7584b8e672ull, 0x6500a99934c2231bull, 0x0fe337e62a37f356ull, 0x388f7b0f632de814ull}},
    {{0xcba8d569b240efe4ull, 0xe88b84bddc619ab7ull, 0x55b4a7250a5c5128ull, 0x2f8bde4d1a072093ull},
     {0xdca87d3aa6ac62d6ull, 0xf788271bab0d6840ull, 0xd4dba9dda6c9c426ull, 0xd8ac222636e5e3d6ull}},
    {{0xe92bddedcac4f9bcull, 0x3d419b7e0330e39cull, 0xa398f365f2ea7a0eull, 0x5cbdf0646e5db4eaull},
     {0xa5082628087264daull, 0xa813d0b813fde7b5ull, 0xa3178d6d861a54dbull, 0x6aebca40ba255960ull}},
    {{0xc35f110dfc27ccbeull, 0xe09796974c57e714ull, 0x09ad178a9f559abdull, 0xacd484e2f0c7f653ull},
     {0x05cc262ac64f9c37ull, 0xadd888a4375f8e0full, 0x64380971763b61e9ull, 0xcc338921b0a7d9fdull}},
    {{0xbbec17895da008cbull, 0x5649980be5c17891ull, 0x5ef4246b70c65aacull, 0x774ae7f858a9411eull},
     {0x301d74c9c953c61bull, 0x372db1e2dff9d6a8ull, 0x0243dd56d7b7b365ull, 0xd984a032eb6b5e19ull}},
    {{0xdeeddf8f19405aa8ull, 0xb075fbc6610e58cdull, 0xc7d1d205c3748651ull, 0xf28773c2d975288bull},
     {0x29b5cb52db03ed81ull, 0x3a1a06da521fa91full, 0x758212eb65cdaf47ull, 0x0ab0902e8d880a89ull}},
    {{0x44adbcf8e27e080eull, 0x31e5946f3c85f79eull, 0x5a465ae3095ff411ull, 0xd7924d4f7d43ea96ull},
     {0xc504dc9ff6a26b58ull, 0xea40af2bd896d3a5ull, 0x83842ec228cc6defull, 0x581e2872a86c72a6ull}},
    {{0x66e4faa04a2d4a34ull, 0xeb9898ae79b97687ull, 0xa420fee807eacf21ull, 0xdefdea4cdb677750ull},
     {0xcfb199f69e56eb77ull, 0xced1f4a04a95c0f6ull, 0xe997b0ead2a93daeull, 0x4211ab0694635168ull}},
    {{0x7475656138385b6cull, 0xf06acfebd7e86d27ull, 0x93ef5cff444f4979ull, 0x2b4ea0a797a443d2ull},
     {0xb570c854e5c09b7aull, 0x1a01f60c50269763ull, 0xb343083b5a1c8613ull, 0x85e89bc037945d93ull}},
    {{0x81340aef25be59d5ull, 0x1d9ad40271f81071ull, 0x4f93fa332ce33330ull, 0x352bbf4a4cdd1256ull},
     {0x67bd3d8bcf81998cull, 0x4a1b3b2e71b1039cull, 0xd59c18259dda3e1full, 0x321eb4075348f534ull}},
    {{0xdc9cdadd4ecacc3full, 0xe42ab8dfeff5ff29ull, 0x0230010559879124ull, 0x2fa2104d6b38d11bull},
     {0x423ba76b532b7d67ull, 0x181d70ecfc882648ull, 0xb64569335bd5dd80ull, 0x02de1068295dd865ull}},
    {{0x69ca0cd7f5453714ull, 0x263c3d84e09572e2ull, 0xab21a9b066edda83ull, 0x9248279b09b4d68dull},
     {0xe54a32ce97cb3402ull, 0x3fc0de2a887912ffull, 0x5d1aa71bdea2b1ffull, 0x73016f7bf234aadeull}},
    {{0x7e996d443dee8729ull, 0x2f570e144bf615c0ull, 0x8e70132fb0beb752ull, 0xdaed4f2be3a8bf27ull},
     {0xab40e52290be1c55ull, 0x3f83c230f3afa726ull, 0xd4a1aca87ef8d700ull, 0xa69dce4a7d6c98e8ull}},
    {{0xe6a3b5e87d22e7dbull, 0x11ecd9e9fdf281b0ull, 0x8acf28d7cbb19f90ull, 0xc44d12c7065d812eull},
     {0xa039063f0e0e6482ull, 0x0e106e861edf61c5ull, 0x76c45926c982fdacull, 0x2119a460ce326cdcull}},
    {{0xb61c65cbd269e6b4ull, 0x152b695336c28063ull, 0xc89a20cfded60853ull, 0x6a245bf6dc698504ull},
     {0xfd5e6348100d8a82ull, 0x8b33ba48d0423b6eull, 0x8b3f5126f16a24adull, 0xe022cf42c2bd4a70ull}},
    {{0xf95ae57f0d0bd6a5ull, 0xce13300b0bec1146ull, 0xc077e3d2fe541084ull, 0x1697ffa6fd9de627ull},
     {0xadee9d63d01b2396ull, 0xa2cf15009e498ae7ull, 0x27561506e4557433ull, 0xb9c398f186806f5dull}},
    {{0xf982345ef27a7479ull, 0x9deb8360ffb7f61dull, 0x986d0f07e834cb0dull, 0x605bdb019981718bull},
     {0x3b01e1e9056b8c49ull, 0xc26bfae84fb14db4ull, 0x81a78d93ec96fe23ull, 0x02972d2de4f8d206ull}},
    {{0xfe31c7e9d87ff33dull, 0xdcb01c354959b10cull, 0x7402fdc45a215e10ull, 0x62d14dab4150bf49ull},
     {0x35f5642483b25eafull, 0x01aa132967ab4722ull, 0x98088a1950eed0dbull, 0x80fc06bd8cc5b010ull}},
    {{0x5e555c2f86308b6full, 0x2c50e9f56b9b8b42ull, 0xde5b4b06c408e56bull, 0x80c60ad0040f27daull},
     {0x1aa01f56430bd57aull, 0xa65eed4cbe7024ebull, 0x26e66bad7fe72f70ull, 0x1c38303f1cc5c30full}},
    {{0x9d5eabb0fa03c8fbull, 0x4cc5dc9487d84704ull, 0xaa74c6348cc54d34ull, 0x7a9375ad6167ad54ull},
     {0x02d499ec224dc7f7ull, 0xbdc59ea10c70ce2bull, 0x09559e0d79269046ull, 0x0d0e3fa9eca87269ull}},
    {{0x4bb51f459bc3ffc9ull, 0xbb408ec39b68df50ull, 0x907a9ed045447a79ull, 0xd528ecd9b696b54cull},
     {0x063465b521409933ull, 0xbc4345405c520dbcull, 0x9966f21881fd656eull, 0xeecf41253136e5f9ull}},
    {{0x87231808f8b45963ull, 0x5266115e4a7ecb13ull, 0xea25f514e8ecdad0ull, 0x049370a4b5f43412ull},
     {0xb653052a12949c9aull, 0x54c3f3afbb5b6764ull, 0x8b3081b0512fd62aull, 0x758f3f41afd6ed42ull}},
    {{0xf1c13eb1fc345d74ull, 0x881d811e0e1498e2ull, 0xd73df930d64702efull, 0x77f230936ee88cbbull},
     {0xbe8eb3c7671c60d6ull, 0x96c95330d97077cbull, 0x0a08266e9ba1b378ull, 0x958ef42a7886b640ull}},
    {{0xeb28531b7739f530ull, 0x58c80074ab9d4dbaull, 0xea44887e5c7c0bceull, 0xf2dac991cc4ce4b9ull},
     {0x1a117dba703a3c37ull, 0x9eb5fbeb0598e4fdull, 0x4da1f32dec2531dfull, 0xe0dedc9b3b2f8dadull}},
    {{0xbcba4850c690d45bull, 0x5a216cdfc9dae3deull, 0x1b4be8fbbe252012ull, 0x463b3d9f662621fbull},
     {0x1cb377b01af7307eull, 0xc622e27c970a1de3ull, 0x43114306dd8622d7ull, 0x5ed430d78c296c35ull}},
    {{0xa32496b49998f247ull, 0x6b98fac14328a2d1ull, 0x09232d4aff3b5997ull, 0xf16f804244e46e2aull},
     {0xd6579962c4e31df6ull, 0x2a6c53c26e5cce26ull, 0x13d206fcdf4e33d9ull, 0xcedabd9b82203f7eull}},
    {{0x369e15f7151d41d1ull, 0x5d245315ace27c65ull, 0xb0352b7a14311af5ull, 0xcaf754272dc84563ull},
     {0xc32f908318a04476ull, 0x5f4fa9b7962232a5ull, 0xa41b643fa5e46057ull, 0xcb474660ef35f5f2ull}},
    {{0x24497bc86f082120ull, 0x44a09c07cb86d7c1ull, 0xf85d0f1709979d8bull, 0x2600ca4b282cb986ull},
     {0x4b0be9475a7e4b40ull, 0x5ac6be74ab5f0ef4ull, 0xa693b03fcddbb45dull, 0x4119b88753c15bd6ull}},
    {{0xc602a7746998e435ull, 0x01c48685e24f7dc8ull, 0x338ec53cd12220bcull, 0x7635ca72d7e8432cull},
     {0xd9e76f302c5b9c61ull, 0x4ecfc061d57048baull, 0x3d1d5e590f78e6d7ull, 0x091b649609489d61ull}},
    {{0xc1a50743bf56cc18ull, 0xb7f2b33479d468fbull, 0xdbbf4a87deee8a66ull, 0x754e3239f325570cull},
     {0x0c5d98093c536683ull, 0x23ee33d0197a695dull, 0xb3cd0ed304ea49a0ull, 0x0673fb86e5bda30full}},
    {{0x9fe2694691d9b9e8ull, 0x330800661d1c952full, 0xff57859c82d570f0ull, 0xe3e6bd1071a1e96aull},
     {0x67002af4920e37f5ull, 0xa5a2283993e90c41ull, 0x40c0aa58379a3cb6ull, 0x59c9e0bba394e76full}},
};

// In Montgomery form.
WG_CONSTANT GeneratorMultiple P256_GENERATOR[32] = {
    {{0x79e730d418a9143cull, 0x75ba95fc5fedb601ull, 0x79fb732b77622510ull, 0x18905f76a53755c6ull},
     {0xddf25357ce95560aull, 0x8b4ab8e4ba19e45cull, 0xd2e88688dd21f325ull, 0x8571ff1825885d85ull}},
    {{0xffac3f904eebc127ull, 0xb027f84a087d81fbull, 0x66ad77dd87cbbc98ull, 0x26936a3fb6ff747eull},
     {0xb04c5c1fc983a7ebull, 0x583e47ad0861fe1aull, 0x788208311a2ee98eull, 0xd5f06a29e587cc07ull}},
    {{0xbe1b8aaec45c61f5ull, 0x90ec649a94b9537dull, 0x941cb5aad076c20cull, 0xc9079605890523c8ull},
     {0xeb309b4ae7ba4f10ull, 0x73c568efe5eb882bull, 0x3540a9877e7a1f68ull, 0x73a076bb2dd1e916ull}},
    {{0x0746354ea0173b4full, 0x2bd20213d23c00f7ull, 0xf43eaab50c23bb08ull, 0x13ba5119c3123e03ull},
     {0x2847d0303f5b9d4dull, 0x6742f2f25da67bddull, 0xef933bdc77c94195ull, 0xeaedd9156e240867ull}},
    {{0x75c96e8f264e20e8ull, 0xabe6bfed59a7a841ull, 0x2cc09c0444c8eb00ull, 0xe05b3080f0c4e16bull},
     {0x1eb7777aa45f3314ull, 0x56af7bedce5d45e3ull, 0x2b6e019a88b12f1aull, 0x086659cdfd835f9bull}},
    {{0xea7d260a6245e404ull, 0x9de407956e7fdfe0ull, 0x1ff3a4158dac1ab5ull, 0x3e7090f1649c9073ull},
     {0x1a7685612b944e88ull, 0x250f939ee57f61c8ull, 0x0c0daa891ead643dull, 0x68930023e125b88eull}},
    {{0xccc425634b2ed709ull, 0x0e356769856fd30dull, 0xbcbcd43f559e9811ull, 0x738477ac5395b759ull},
     {0x35752b90c00ee17full, 0x68748390742ed2e3ull, 0x7cd06422bd1f5bc1ull, 0xfbc08769c9e7b797ull}},
    {{0x72bcd8b7bc60055bull, 0x03cc23ee56e27e4bull, 0xee337424e4819370ull, 0xe2aa0e430ad3da09ull},
     {0x40b8524f6383c45dull, 0xd766355442a41b25ull, 0x64efa6de778a4797ull, 0x2042170a7079adf4ull}},
    {{0x97091dcbd53c5c9dull, 0xf17624b6ac0a177bull, 0xb0f139752cfe2dffull, 0xc1a35c0a6c7a574eull},
     {0x227d314693e79987ull, 0x0575bf30e89cb80eull, 0x2f4e247f0d1883bbull, 0xebd512263274c3d0ull}},
    {{0xfea912baa5659ae8ull, 0x68363aba25e1a16eull, 0xb8842277752c41acull, 0xfe545c282897c3fcull},
     {0x2d36e9e7dc4c696bull, 0x5806244afba977c5ull, 0x85665e9be39508c1ull, 0xf720ee256d12597bull}},
    {{0x562e4cecc135b208ull, 0x74e1b2654783f47dull, 0x6d2a506c5a3f3b30ull, 0xecead9f4c16762fcull},
     {0xf29dd4b2e286e5b9ull, 0x1b0fadc083bb3c61ull, 0x7a75023e7fac29a4ull, 0xc086d5f1c9477fa3ull}},
    {{0xf4f876532de45068ull, 0x37c7a7e89e2e1f6eull, 0xd0825fa2a3584069ull, 0xaf2cea7c1727bf42ull},
     {0x0360a4fb9e4785a9ull, 0xe5fda49c27299f4aull, 0x48068e1371ac2f71ull, 0x83d0687b9077666full}},
    {{0xa4a319acd837879full, 0x6fc1b49eed6b67b0ull, 0xe395993332f1f3afull, 0x966742eb65432a2eull},
     {0x4b8dc9feb4966228ull, 0x96cc631243f43950ull, 0x12068859c9b731eeull, 0x7b948dc356f79968ull}},
    {{0x042c2af497e2feb4ull, 0xd36a42d7aebf7313ull, 0x49d2c9eb084ffdd7ull, 0x9f8aa54b2ef7c76aull},
     {0x9200b7ba09895e70ull, 0x3bd0c66fddb7fb58ull, 0x2d97d10878eb4cbbull, 0x2d431068d84bde31ull}},
    {{0x5e5db46acb66e132ull, 0xf1be963a0d925880ull, 0x944a70270317b9e2ull, 0xe266f95948603d48ull},
     {0x98db66735c208899ull, 0x90472447a2fb18a3ull, 0x8a966939777c619full, 0x3798142a2a3be21bull}},
    {{0xe2f73c696755ff89ull, 0xdd3cf7e7473017e6ull, 0x8ef5689d3cf7600dull, 0x948dc4f8b1fc87b4ull},
     {0xd9e9fe814ea53299ull, 0x2d921ca298eb6028ull, 0xfaecedfd0c9803fcull, 0xf38ae8914d7b4745ull}},
    {{0x871514560f664534ull, 0x85ceae7c4b68f103ull, 0xac09c4ae65578ab9ull, 0x33ec6868f044b10cull},
     {0x6ac4832b3a8ec1f1ull, 0x5509d1285847d5efull, 0xf909604f763f1574ull, 0xb16c4303c32f63c4ull}},
    {{0xfd16847fdec67ef5ull, 0x742ee464233e76b7ull, 0x0b8e4134efc2b4c8ull, 0xca640b8642a3e521ull},
     {0x653a01908ceb6aa9ull, 0x313c300c547852d5ull, 0x24e4ab126b237af7ull, 0x2ba901628bb47af8ull}},
    {{0x00467bc58cce08b5ull, 0xb636458c7f178d55ull, 0xc5748baea677d806ull, 0x2763a387dfa394ebull},
     {0xa12b448a7d3cebb6ull, 0xe7adda3e6f20d850ull, 0xf63ebce51558462cull, 0x58b36143620088a8ull}},
    {{0xa9d89488a059c142ull, 0x6f5ae714ff0b9346ull, 0x068f237d16fb3664ull, 0x5853e4c4363186acull},
     {0xe2d87d2363c52f98ull, 0x2ec4a76681828876ull, 0x47b864fae14e7b1cull, 0x0c0bc0e569192408ull}},
    {{0x624d60492ed22e91ull, 0x6fdfe0b56f072822ull, 0xeeca111539ce2271ull, 0x98100a4fdb01614full},
     {0xb6b0daa2a35c628full, 0xb6f94d2ec87e9a47ull, 0xc67732591d57d9ceull, 0xf70bfeec03884a7bull}},
    {{0x4ff23ffd248a7d06ull, 0x80c5bfb4878873faull, 0xb7d9ad9005745981ull, 0x179c85db3db01994ull},
     {0xba41b06261a6966cull, 0x4d82d052eadce5a8ull, 0x9e91cd3ba5e6a318ull, 0x47795f4f95b2dda0ull}},
    {{0x1ee426ccd5cd79bfull, 0x0032940b946c6e18ull, 0x1b1e8ae057477f58ull, 0xe94f7d346d823278ull},
     {0xc747cb96782ba21aull, 0xc5254469f72b33a5ull, 0x772ef6dec7f80c81ull, 0xd73acbfe2cd9e6b5ull}},
    {{0x283c7513caa76097ull, 0x0a624fa936c83906ull, 0x6b20afec715af2c7ull, 0x4b969974eba78bfdull},
     {0x220755ccd921d60eull, 0x9b944e107baeca13ull, 0x04819d515ded93d4ull, 0x9bbff86e6dddfd27ull}},
    {{0x21950b421ff6acd3ull, 0xffe7048453dc6909ull, 0xff4cd0b228766127ull, 0xabdbe6084fb7db2bull},
     {0x837c92285e1109e8ull, 0x26147d27f4645b5aull, 0x4d78f592f7818ed8ull, 0xd394077ef247fa36ull}},
    {{0x508cec1c3b3f64c9ull, 0xe20bc0ba1e5edf3full, 0xda1deb852f4318d4ull, 0xd20ebe0d5c3fa443ull},
     {0x370b4ea773241ea3ull, 0x61f1511c5e1a5f65ull, 0x99a5e23d82681c62ull, 0xd731e383a2f54c2dull}},
    {{0x97359638546c4d8dull, 0x5f9c3fc492f24679ull, 0x912e8beda8c8acd9ull, 0xec3a318d306634b0ull},
     {0x80167f41c31cb264ull, 0x3db82f6f522113f2ull, 0xb155bcd2dcafe197ull, 0xfba1da5943465283ull}},
    {{0x258bbbf9e7305683ull, 0x31eea5bf07ef5be6ull, 0x0deb0e4a46c814c1ull, 0x5cee8449a7b730ddull},
     {0xeab495c5a0182bdeull, 0xee759f879e27a6b4ull, 0xc2cf6a6880e518caull, 0x25e8013ff14cf3f4ull}},
    {{0x3ec832e77acaca28ull, 0x1bfeea57c7385b29ull, 0x068212e3fd1eaf38ull, 0xc13298306acf8cccull},
     {0xb909f2db2aac9e59ull, 0x5748060db661782aull, 0xc5ab2632c79b7a01ull, 0xda44c6c600017626ull}},
    {{0x69d44ed65c46aa8eull, 0x2100d5d3a8d063d1ull, 0xcb9727eaa2d17c36ull, 0x4c2bab1b8add53b7ull},
     {0xa084e90c15426704ull, 0x778afcd3a837ebeaull, 0x6651f7017ce477f8ull, 0xa062499846fb7a8bull}},
    {{0x3667eb1a7f4c04ccull, 0x59556621a9404f84ull, 0x71cdf6537eceb50aull, 0x994a44a69b8335faull},
     {0xd7faf819dbeb9b69ull, 0x473c5680eed4350dull, 0xb6658466da44bba2ull, 0x0d1bc780872bdbf3ull}},
    {{0xb8d3d9319ff91fe5ull, 0x039c4800f0518eedull, 0x95c376329182cb26ull, 0x0763a43482fc568dull},
     {0x707c04d5383e76baull, 0xac98b930824e8197ull, 0x92bf7c8f91230de0ull, 0x90876a0140959b70ull}},
};

}  // namespace warpgrid
