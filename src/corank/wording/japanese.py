"""The page in Japanese: keyed by the English text."""

from __future__ import annotations

NAMES = {  # words of a result that are data in English
    "accuracy": "正解率",
    "loss": "損失",
    "class": "クラス",
    "slice": "区分",
    "noise": "ノイズ",
    "blur": "ぼけ",
    "contrast": "コントラスト低下",
    "brightness": "明るさの変化",
    "occlusion": "隠れ",
    "jpeg": "JPEG圧縮",
    "shift": "位置ずれ",
    "estimated": "推定値",
    "measured": "実測値",
    "requests per day": "1日の要求数",
    "cost per hour": "1時間の単価",
    "utilisation": "稼働率",
    "speedup": "速度比",
    "currency": "通貨",
    "locale": "地域の表記",
    "watts": "消費電力（W）",
    "electricity": "1kWhの電気料金",
    "engineer hours": "技術者の作業時間",
    "engineer cost": "技術者の1時間の単価",
    "training hours": "学習時間",
    "training cost": "学習1時間の費用",
    "backend": "実行エンジン",
    "shuffled pixels": "画素を並べ替えた入力",
    "macs": "積和演算量",
    "params": "パラメータ数",
    "bytes": "容量",
    "peak_memory": "最大メモリ",
    "latency": "処理時間",
}

MESSAGES = {
    # numbers in sentences
    "not measured": "未測定",
    "{hours} h {minutes} min": "{hours}時間{minutes}分",
    "{seconds} s": "{seconds}秒",
    "{minutes} min {seconds} s": "{minutes}分{seconds}秒",
    "{low} to {high}": "{low}〜{high}",
    "{head} and {last}": "{head}、{last}",
    "{first}, {second}": "{first}、{second}",
    "{first} {second}": "{first}{second}",
    "{figure} {steps}": "{figure}{steps}",
    "points": "ポイント",
    "yes": "はい",
    "no": "いいえ",
    "none": "なし",
    ", ": "、",
    " ": "",
    # the opening
    "In a meeting": "会議での要点",
    "What it does": "何をしたか",
    "What it gains": "何が得られるか",
    "The risk, and what is next": "リスクと次の一手",
    "{cut} of {layers} layers of the network were each replaced by smaller ones that do nearly the same: "
    "it now needs {macs} of the multiplications and {params} of the parameters, and is used as before.": (
        "ネットワークの{layers}層のうち{cut}層を、ほぼ同じ働きをする小さな層に置き換えました。計算量は元の{macs}、"
        "パラメータ数は元の{params}になり、使い方は変わりません。"
    ),
    "How the network was changed was not written down.": "ネットワークをどう変えたかの記録がありません。",
    "How fast it is was not measured.": "速度は測定されていません。",
    "On {engine} it is {speedup} as fast (95% interval {interval}), {after} instead of {before} a batch": (
        "{engine}での速度は元の{speedup}（95%信頼区間 {interval}）で、1バッチの処理時間は{before}から{after}に"
        "短縮されました"
    ),
    "On {engine} it is slower, {speedup} as fast (95% interval {interval})": (
        "{engine}では遅くなり、速度は元の{speedup}（95%信頼区間 {interval}）です"
    ),
    "On {engine} it is not measurably faster, {speedup} (95% interval {interval})": (
        "{engine}では速くなったとは言えません。速度は元の{speedup}（95%信頼区間 {interval}）です"
    ),
    "; at your load that saves {saving} a month (95% interval {interval}).": (
        "。ご指定の要求数では、月に{saving}（95%信頼区間 {interval}）の節約になります。"
    ),
    "; what that is worth in money was not worked out (--economics does).": (
        "。金額への換算は行っていません（--economicsで指定できます）。"
    ),
    "How {metric} changes is not known for sure.": "{metric}がどう変わるかは、確かには分かっていません。",
    "On {samples} samples that it had never seen, {metric} changes by {change} (95% interval {interval}).": (
        "一度も見せていない{samples}件のサンプルで、{metric}の変化は{change}（95%信頼区間 {interval}）でした。"
    ),
    "No decision was made: ask corank gate.": "判定はまだです。corank gateを実行してください。",
    "{verdict}: keep serving the dense network.": "判定は「{verdict}」。元のネットワークでの運用を続けてください。",
    "{verdict}: next comes {stage}.": "判定は「{verdict}」。次は{stage}です。",
    "{verdict}: keep serving the dense network, collect {needed} final samples, and run the trial again.": (
        "判定は「{verdict}」。元のネットワークでの運用を続け、最終評価用サンプルを{needed}件集めてから、"
        "もう一度試験してください。"
    ),
    "{verdict}: keep serving the dense network until what holds it is settled: {reason}.": (
        "判定は「{verdict}」。次の点が解決するまで、元のネットワークでの運用を続けてください：{reason}。"
    ),
    "Each figure leads to where it comes from.": "数値を選ぶと、その根拠に移動します。",
    "New to this?": "初めての方は",
    "Read the words of this page.": "用語の説明をご覧ください。",
    # the headline and the findings
    "{headline}.": "{headline}",
    "{ratio}×": "{ratio}倍",
    "{arm} {pace}, {accuracy}": "{arm}：{pace}、{accuracy}",
    "runs {pace} as fast as dense{on}": "速度は{on}元の{pace}",
    "is not measurably faster{on} at {pace}": "{on}速くなったとは言えず、速度は元の{pace}",
    "is slower{on} at {pace}": "{on}遅くなり、速度は元の{pace}",
    "runs {pace} as fast{on} with no interval measured": "速度は{on}元の{pace}（信頼区間は未測定）",
    " (95% intervals within {interval})": "（95%信頼区間は{interval}の範囲）",
    " (95% interval {interval})": "（95%信頼区間 {interval}）",
    " on {engines}": "{engines}で",
    "was not timed against dense": "元のネットワークとの速度比較は未測定",
    "at {value} {metric} against {dense}": "{metric}は{dense}に対して{value}",
    "at {value} {metric}": "{metric}は{value}",
    "{metric} not measured": "{metric}は未測定",
    "Only the dense network was run: there is nothing to compare": (
        "元のネットワークだけを実行したため、比較するものがありません"
    ),
    "Speed": "速度",
    "Without the force": "フォースなしの場合",
    "Money": "費用",
    "Limits": "この試験の限界",
    "Speedup: not measured.": "速度比：未測定。",
    "Measured speedup over dense: {speedups}.": "元のネットワークに対する速度比の実測値：{speedups}。",
    "{speedup} on {engine} (95% interval {interval})": "{engine}で{speedup}（95%信頼区間 {interval}）",
    "{speedup} on {engine}": "{engine}で{speedup}",
    "{metric} differs by {change}{on}": "{metric}の差は{on}{change}",
    " on {samples} final samples": "最終評価用サンプル{samples}件で",
    " (95% interval {interval}): ": "（95%信頼区間 {interval}）。",
    "; no interval was measured, so chance cannot be told apart from a real change.": (
        "。信頼区間が測定されていないため、偶然と実際の変化を区別できません。"
    ),
    "The difference in {metric} to dense was not measured.": "元のネットワークとの{metric}の差は未測定です。",
    "the loss is real, between {low} and {high}.": "低下は偶然ではなく、{low}から{high}の間です。",
    "the gain is real.": "改善は偶然ではありません。",
    "a loss above {lost} is ruled out at the 95% level; a smaller one is not.": (
        "{lost}を超える低下は95%の水準で否定できますが、それより小さな低下は否定できません。"
    ),
    "Cut without the force, the network reaches {value} at {speedups}.": (
        "フォースなしで圧縮したネットワークは{value}、速度比は{speedups}です。"
    ),
    "Cut without the force, the network reaches {value}.": "フォースなしで圧縮したネットワークは{value}です。",
    "This trial says nothing about other data, machines or batch sizes than its own.": (
        "この試験から言えるのは、使用したデータ、機器、バッチサイズについてだけです。"
    ),
    "{seeds} seeds were trained; their spread is below.": (
        "{seeds}個のシードで学習しました。ばらつきは下に示します。"
    ),
    "With one seed, the method cannot be told from the luck of one training run.": (
        "シードが1つなので、手法の効果と学習1回分の運を区別できません。"
    ),
    # the front
    "More or less: what one would gain and lose": "圧縮の度合いを変えたときの得失",
    "Move from the whole network, left, to the smallest, right": (
        "左端が元のネットワーク、右端が最も小さいネットワークです。つまみを動かしてください"
    ),
    "Share kept": "残す割合",
    "One training, “{arm}”, cut to several shares of dense's {by}; each was trained on for {epochs} "
    "epochs after its cut and timed in the same run. {metric} here is on the dev samples, by which "
    "choices are made, so it flatters a little. The final samples were kept for the network of this page: "
    "before another point is shipped, run the trial with it as the target.": (
        "「{arm}」の同じ学習結果を、元の{by}に対するいくつかの割合まで圧縮しました。どの点も圧縮後に{epochs}"
        "エポック追加で学習し、速度は同じ測定の中で交互に計りました。ここでの{metric}は、選択に使う開発用サンプル"
        "によるもので、やや良い値になりがちです。最終評価用サンプルはこのページのネットワークだけに使いました。"
        "別の点を採用する前に、それを目標にして試験をやり直してください。"
    ),
    "At {share} of dense's {by}: {speedup} as fast on {engine}, {metric} on dev changes by {change}": (
        "{by}を元の{share}にすると、{engine}での速度は元の{speedup}、開発用サンプルでの{metric}の変化は{change}"
    ),
    "{told}.": "{told}です。",
    "{told}; saves {saving} a month.": "{told}、節約額は月に{saving}です。",
    "The network as it was: nothing gained, nothing lost.": "元のネットワークのままです。得るものも失うものもありません。",
    "The measured front on {engine}": "{engine}で測定した圧縮の度合いごとの結果",
    "dense, not cut": "元のまま、圧縮なし",
    "the network of this page": "このページのネットワーク",
    "{metric} on dev": "{metric}（開発用）",
    "{metric} on dev, {engine}": "{metric}（開発用）、{engine}",
    "{share}: {value} at {latency}": "{share}：{latency}で{value}",
    "speedup; latency": "速度比、処理時間",
    "Saving per month": "月の節約額",
    # the arms
    "What was measured, in words": "測定結果のまとめ",
    "The arms side by side": "試験群の比較",
    "Arm": "試験群",
    "Dense": "元のネットワーク",
    "Low rank": "低ランク",
    "Force + low rank": "フォース＋低ランク",
    "Force towards the plan + low rank": "計画に向けたフォース＋低ランク",
    "reference": "基準",
    "95% interval": "95%信頼区間",
    "{steps}, 95% interval": "{steps}、95%信頼区間",
    "Difference": "差",
    "speedup; latency, p5 to p95": "速度比、処理時間、p5〜p95",
    "MACs": "積和演算量",
    "Parameters": "パラメータ数",
    "File size": "ファイル容量",
    "Peak memory": "最大メモリ",
    "Training": "学習",
    "of\N{NO-BREAK SPACE}dense": "元に対する割合",
    "by engine": "エンジン別",
    "time": "時間",
    "{epochs} epochs": "{epochs}エポック",
    "{value} right after the cut": "圧縮直後 {value}",
    "latency not measured": "処理時間は未測定",
    "force adds {added}": "フォースによる増加 {added}",
    "force overhead not measured": "フォースの負荷は未測定",
    "Intervals of {metric}, difference and speedup are at the 95% level.": (
        "{metric}、差、速度比の区間は95%信頼区間です。"
    ),
    "The difference is in percentage points.": "差の単位はパーセントポイントです。",
    "Latency is the median of one batch; p5 to p95 is how single runs scatter, which is not an interval of the "
    "median. “Of dense” compares with the dense network. MACs are multiply-accumulates of one sample.": (
        "処理時間は1バッチの中央値です。p5〜p95は1回ごとのばらつきで、中央値の信頼区間ではありません。"
        "「元に対する割合」は元のネットワークとの比較です。積和演算量は1サンプルあたりの値です。"
    ),
    "All metrics on the final samples": "最終評価用サンプルでのすべての指標",
    "The first metric decides. Small figures are 95% intervals.": (
        "判定には最初の指標を使います。小さな数字は95%信頼区間です。"
    ),
    # pictures
    "{metric} against latency, and during training": "{metric}と処理時間の関係、学習中の推移",
    "{metric} against latency on {engine}": "{engine}での{metric}と処理時間",
    "{metric} on {engine}": "{metric}、{engine}",
    "{metric} on the dev samples": "{metric}（開発用サンプル）",
    "{metric} during training": "学習中の{metric}",
    "{arm}: {value} (95% interval {interval}) at {latency}": (
        "{arm}：{latency}で{value}（95%信頼区間 {interval}）"
    ),
    "{arm} ends at {value} after epoch {epoch}": "{arm}は{epoch}エポック後に{value}",
    "the cut comes after epoch {epoch}": "圧縮は{epoch}エポックの後",
    "latency, ms": "処理時間、ms",
    "epoch": "エポック",
    "cut": "圧縮",
    "Upper left is better.": "左上ほど良い結果です。",
    "Lower left is better.": "左下ほど良い結果です。",
    "Upright lines: 95% interval of the {metric} on the final samples. Level lines: p5 to p95 of the latency.": (
        "縦線は最終評価用サンプルでの{metric}の95%信頼区間、横線は処理時間のp5〜p95です。"
    ),
    "During training, {metric} is on the dev samples, by which all choices were made.": (
        "学習中の{metric}は、すべての選択に使った開発用サンプルによるものです。"
    ),
    "rank": "ランク",
    "Rank of each layer": "各層のランク",
    "Rank of each layer, {arm}": "各層のランク、{arm}",
    "full rank": "最大ランク",
    "plan rank, kept after the cut": "計画のランク（圧縮後に残す）",
    "spectral rank: holds 95% of the energy, before the cut": (
        "スペクトルランク（圧縮前にエネルギーの95%を担う）"
    ),
    "{layer}: full {full}, spectral {spectral}, {kept}": "{layer}：最大{full}、スペクトル{spectral}、{kept}",
    "kept {rank}": "{rank}を残す",
    "left alone": "変更なし",
    "{arm}: {cut} of {layers} layers decomposed; spectral rank {spectral} of full, plan rank {kept} of full.": (
        "{arm}：{layers}層のうち{cut}層を分解。スペクトルランクは最大の{spectral}、計画のランクは最大の{kept}。"
    ),
    "Where the coloured bar ends right of the tick, the plan kept more than the rank that holds 95% of the "
    "energy; left of it, less. A bar without colour is a layer left alone; the table below says why.": (
        "色の付いた棒が目印より右で終わる層では、エネルギーの95%を担うランクより多くを残し、左で終わる層では"
        "少なくしています。色のない棒は変更しなかった層で、理由は下の表にあります。"
    ),
    "Singular values with and without the force": "フォースの有無による特異値の違い",
    "Singular values of {layer}": "{layer}の特異値",
    "{arm}: number {number} of {all} is {value} of the largest": (
        "{arm}：{all}個中{number}番目は最大値の{value}倍"
    ),
    "Before the cut, each layer’s values divided by its largest, on a logarithmic scale, largest first. The "
    "mark is the rank that the plan kept. A line that falls faster loses less when it is cut.": (
        "圧縮前の各層の特異値を最大値で割り、大きい順に対数目盛で示しました。印は計画で残したランクです。"
        "速く下がる線ほど、圧縮で失うものが少なくなります。"
    ),
    "Basis filters of the first decomposed convolution": "最初に分解した畳み込み層の基底フィルタ",
    "Basis filters, {arm}": "基底フィルタ、{arm}",
    "{all} filters of {layer} as grey images, the first {shown} shown": (
        "{layer}のフィルタ{all}枚の濃淡画像、先頭の{shown}枚を表示"
    ),
    "Each square is one basis filter, averaged over its input channels, on its own scale; mid-grey is zero.": (
        "各正方形は1枚の基底フィルタで、入力チャネルの平均をそれぞれの尺度で示します。中間の灰色がゼロです。"
    ),
    # layers and seeds
    "Layer by layer": "層ごとの結果",
    "Layer": "層",
    "Full rank": "最大ランク",
    "Spectral rank": "スペクトルランク",
    "Plan rank": "計画のランク",
    "Error": "誤差",
    "no reason given": "理由の記録なし",
    "not in this arm": "この試験群にはない",
    "{kept} of {full}": "{full}中{kept}",
    "of {whole}": "元は{whole}",
    "Spectral rank: the least rank with 95% of the energy, before the cut. Error: what the cut changed in the "
    "weights, relative Frobenius norm.": (
        "スペクトルランク：圧縮前にエネルギーの95%を担う最小のランク。誤差：圧縮による重みの変化"
        "（フロベニウスノルムの比）。"
    ),
    "Spread over seeds": "シードによるばらつき",
    "Lowest to highest": "最小〜最大",
    "speedup, {engine}": "速度比、{engine}",
    "Seed {seed}": "シード{seed}",
    # protocol
    "Protocol": "試験条件",
    "Command": "コマンド",
    "Data": "データ",
    "Samples": "サンプル数",
    "Classes": "クラス",
    "Network": "ネットワーク",
    "Deciding metric": "判定に使う指標",
    "Seeds": "シード",
    "Epochs": "エポック",
    "Optimizer": "最適化手法",
    "Target of the cut": "圧縮の目標",
    "Threads": "スレッド数",
    "Precision": "数値精度",
    "Batch size when timed": "速度測定時のバッチサイズ",
    "Machine": "機器",
    "Versions": "バージョン",
    "Subnormal weights, {arm}": "非正規化数の重み、{arm}",
    "Files, {arm}": "ファイル、{arm}",
    "{before} before the cut, {after} at the end; a cut sets those of the layers that it splits to zero": (
        "圧縮前{before}個、最後は{after}個。分解した層のものは圧縮時にゼロになります"
    ),
    "Every figure on this page comes from": "このページの数値の出典：",
    # the words
    "The words of this page": "用語の説明",
    "Rank": "ランク",
    "Cut": "圧縮",
    "Force": "フォース",
    "Dev and final samples": "開発用サンプルと最終評価用サンプル",
    "Points": "ポイント",
    "Speedup": "速度比",
    "How many independent patterns a layer really uses. A layer of low rank can be replaced by two "
    "smaller ones that compute nearly the same in less time.": (
        "ある層が実際に使っている独立したパターンの数です。ランクの低い層は、ほぼ同じ計算を短い時間で行う"
        "2つの小さな層に置き換えられます。"
    ),
    "The network as it was, trained as long as the others. Everything is compared with it, and it is "
    "what you go back to.": (
        "圧縮していないネットワークで、学習の長さは他の試験群と同じです。すべての比較の基準であり、"
        "切り戻すときの戻り先です。"
    ),
    "One way to train the network in this trial. All arms see the same data as long.": (
        "この試験での学習方法の1つです。どの試験群も同じデータを同じ長さだけ学習します。"
    ),
    "The moment in training when layers are replaced by smaller ones.": (
        "学習の途中で、層を小さな層に置き換える操作です。"
    ),
    "A small pull during training that makes the filters of a layer alike, so that a cut loses less. It "
    "is gone once training ends.": (
        "学習中に同じ層のフィルタを互いに似せる弱い力です。圧縮で失うものが少なくなります。"
        "学習が終わればなくなります。"
    ),
    "Choices are made on dev samples. Final samples are looked at once, at the end, so they show what to "
    "expect.": (
        "選択は開発用サンプルで行います。最終評価用サンプルは最後に一度だけ使うので、実際に期待できる結果を示します。"
    ),
    "Where the true value plausibly lies. If it includes no change, chance alone may explain the "
    "difference.": ("真の値があると考えられる範囲です。変化なしを含む場合、差は偶然かもしれません。"),
    "Percentage points: from 98.0% to 97.5% is a loss of 0.5 points.": (
        "パーセントポイントのことです。98.0%から97.5%への変化は0.5ポイントの低下です。"
    ),
    "Multiplications, each with an addition, that one sample takes.": (
        "1サンプルの処理に必要な掛け算（足し算とひと組）の回数です。"
    ),
    "How many times as fast as dense: at 2× a batch takes half the time.": (
        "元のネットワークの何倍の速さかを示します。2倍なら1バッチの時間が半分になります。"
    ),
}
