"""The decision, the money and the reasons of layers in Japanese: keyed by the English text."""

from __future__ import annotations

MESSAGES = {
    # the verdict
    "Advance": "次の段階へ",
    "Hold": "保留",
    "Roll back": "切り戻し",
    "advance": "次の段階へ",
    "hold": "保留",
    "roll back": "切り戻し",
    "not judged": "対象外",
    "; ": "。",
    "{verdict}: {reasons}.": "{verdict}：{reasons}。",
    "{verdict}, needs {needed} final samples": "{verdict}（最終評価用サンプルが{needed}件必要）",
    " Next stage: {stage}.": "次の段階は{stage}です。",
    "{name} ({share} of the requests, at least {hours} hours)": "{name}（要求の{share}、{hours}時間以上）",
    "{name} ({share} of the requests)": "{name}（要求の{share}）",
    "Decision on {arm}: {verdict}": "{arm}の判定：{verdict}",
    "Name": "項目",
    "Check": "項目",
    "Outcome": "結果",
    "Reason": "理由",
    # the checks
    "{told}, {why}": "{told}、{why}",
    "{number} points": "{number}ポイント",
    "loss of {metric} {loss} (95% interval {interval})": "{metric}の低下は{loss}（95%信頼区間 {interval}）",
    "the margin of {limit}": "許容幅{limit}",
    "the minimum of {limit}": "下限{limit}",
    "the limit of {limit}": "上限{limit}",
    "within {limit}": "{limit}の範囲内です",
    "above {limit}": "{limit}を超えています",
    "beyond {limit}": "{limit}を超えています",
    "beyond {limit} for certain": "{limit}を確実に超えています",
    "which reaches beyond {limit}": "区間が{limit}を超えています",
    "at least {limit}": "{limit}を満たしています",
    "below {limit}": "{limit}に届きません",
    "which reaches below {limit}": "区間が{limit}を下回ります",
    "and {samples} final samples are too few for {limit}: it needs {needed}": (
        "{limit}を判定するには最終評価用サンプル{samples}件では足りず、{needed}件が必要です"
    ),
    "{metric} has no interval against dense, so a loss cannot be ruled out": (
        "元のネットワークと比べた{metric}の信頼区間がないため、低下を否定できません"
    ),
    "{metric} of dense is 0 or unknown, so a margin that is a fraction of it means nothing": (
        "元のネットワークの{metric}が0または不明なため、それに対する割合の許容幅は意味を持ちません"
    ),
    "speed": "速度",
    "worst slice": "最も悪い区分",
    "drift": "データの変化",
    "memory": "メモリ",
    "the speed was not measured": "速度が測定されていません",
    "the speed was not measured on {engine}": "{engine}での速度が測定されていません",
    "{speedup} times as fast on {engine} (95% interval {low} to {high})": (
        "{engine}で元の{speedup}倍の速さ（95%信頼区間 {low}〜{high}）"
    ),
    "slower than dense for certain": "元のネットワークより確実に遅くなっています",
    "no classes or slices are known": "クラスや区分の情報がありません",
    "the policy leaves slices open": "方針で区分は判定の対象外です",
    "the worst {kind}, {name}, loses {loss} on {samples} samples": (
        "最も悪い{kind}「{name}」の低下は{samples}件で{loss}"
    ),
    "the policy leaves drift open": "方針でデータの変化は判定の対象外です",
    "drift was not measured": "データの変化への影響が測定されていません",
    "{name} has a loss that is not finite, so it is not known": "「{name}」の低下は有限の値ではなく、不明です",
    "under {corruption} the loss has no interval": "「{corruption}」での低下に信頼区間がありません",
    "{name} has {samples} samples, fewer than the {needed} that the policy asks for": (
        "「{name}」は{samples}件で、方針の求める{needed}件に足りません"
    ),
    "and the policy requires it: run the trial with --drift": (
        "方針では必須です。--driftを付けて試験してください"
    ),
    "under {corruption} it loses {loss} more than dense (95% interval {interval})": (
        "「{corruption}」での低下は元のネットワークより{loss}大きい（95%信頼区間 {interval}）"
    ),
    "peak memory was not measured": "最大メモリが測定されていません",
    "the policy leaves memory open": "方針でメモリは判定の対象外です",
    "peak memory is {share} of dense's on {engine}": "{engine}での最大メモリは元の{share}",
    "seeds": "シード",
    "one seed alone was trained": "学習したシードは1つだけです",
    "of {seeds} seeds, seed {seed} is the slowest, {speedup} times as fast on {engine}": (
        "{seeds}個のシードのうち最も遅いのはシード{seed}で、{engine}で元の{speedup}倍の速さ"
    ),
    "of {seeds} seeds, seed {seed} loses most, {loss}": (
        "{seeds}個のシードのうち低下が最も大きいのはシード{seed}で、{loss}"
    ),
    # samples, slices, drift, folds, energy
    "Sample by sample": "サンプルごとの比較",
    "Right to wrong": "正解から不正解",
    "Wrong to right": "不正解から正解",
    "samples": "件",
    "p, McNemar": "p値（McNemar）",
    "Same answer": "同じ答え",
    "Calibration error": "較正誤差",
    "change in points, 95% interval": "変化（ポイント）、95%信頼区間",
    "Against dense on the same final samples; samples.csv has each of them.": (
        "同じ最終評価用サンプルで元のネットワークと比べた結果です。1件ごとの結果はsamples.csvにあります。"
    ),
    " The first that {arm} turns wrong: {numbers}.": "{arm}で不正解になった最初のサンプル：{numbers}。",
    "Classes and slices: {arm}": "クラスと区分：{arm}",
    "{kind}, {samples} samples": "{kind}、{samples}件",
    "p, Holm": "p値（Holm）",
    "Worst: {worst}. All intervals hold together at 95% (Bonferroni); p is that of McNemar's exact test, "
    "or of a permutation test where the metric counts no hits, corrected by Holm.": (
        "最も悪いのは「{worst}」です。区間はすべて同時に95%で成り立ちます（Bonferroni）。p値はMcNemarの正確検定、"
        "正誤を数えない指標では並べ替え検定の値をHolm法で補正したものです。"
    ),
    " The {shown} that lose most of {all}.": "{all}件のうち低下の大きい{shown}件を示します。",
    "Drift: {arm}": "データの変化への耐性：{arm}",
    "Changes more than dense": "元のネットワークとの変化の差",
    "mean of five strengths": "5段階の強さの平均",
    "second data set": "第2のデータ",
    "Change of small minus change of dense, on the same samples; a second data set has its own.": (
        "同じサンプルでの、圧縮後の変化から元のネットワークの変化を引いた値です。第2のデータには別のサンプルを使います。"
    ),
    " Inputs that show nothing: {told}.": "何も写っていない入力：{told}。",
    "on {inputs} it is {small} sure, dense {dense} (difference in points {interval})": (
        "{inputs}での確信度は{small}、元は{dense}（差は{interval}ポイント）"
    ),
    "Cross-validation": "交差検証",
    "Fold {number}": "分割{number}",
    "Mean": "平均",
    "95% interval over all held-out samples": "除外した全サンプルでの95%信頼区間",
    "Networks of two folds share most of their training data: the interval is a little too narrow, and "
    "the gate does not use it.": (
        "分割どうしは学習データの大部分を共有するため、区間はやや狭めに出ます。判定には使いません。"
    ),
    "Energy": "エネルギー",
    "A million inferences": "推論100万回",
    "In eager torch, by {source}.": "通常のtorchで実行し、{source}で計算しました。",
    # money
    "Per million, dense": "100万回あたり、元",
    "Per million": "100万回あたり、圧縮後",
    "In whole instances": "インスタンス台数で見た場合",
    "Paid back": "回収",
    "months": "か月",
    "never": "回収できない",
    "on {engine}": "{engine}で",
    "at {value}": "{value}のとき",
    "Money, if": "費用の感度",
    "Low": "低い場合",
    "High": "高い場合",
    "From measured times and these numbers: {terms}.": "実測した時間と次の数値から計算しました：{terms}。",
    "Saving per month of {arm} with one number halved or doubled, or at its interval's ends.": (
        "1つの数値を半分または2倍にしたとき、あるいは信頼区間の両端での、{arm}の月の節約額です。"
    ),
    "at least {amount}": "少なくとも{amount}",
    "at most {amount}": "最大{amount}",
    "{value} (95% interval {interval})": "{value}（95%信頼区間 {interval}）",
    "A million inferences on {engine} cost {before} before and {after} after.": (
        "{engine}での推論100万回の費用は、圧縮前{before}、圧縮後{after}です。"
    ),
    "Saving per month: {saving}, as far as instances follow the load; in whole instances {whole} "
    "({before} before, {after} after).": (
        "月の節約額は、台数が負荷に応じて増減する場合で{saving}、インスタンスの台数で見ると{whole}です"
        "（前{before}台、後{after}台）。"
    ),
    "The weights in all instances take {before} before and at least {after} after.": (
        "全インスタンスの重みの容量は、前が{before}、後が少なくとも{after}です。"
    ),
    "All instances take {before} of memory at the peak before and {after} after.": (
        "全インスタンスの最大メモリの合計は、前が{before}、後が{after}です。"
    ),
    "With {name} at {low} or {high}, the saving per month is {less} or {more}.": (
        "{name}が{low}または{high}のとき、月の節約額は{less}または{more}です。"
    ),
    "The {invested} that it takes are paid back never.": "必要な投資額{invested}は回収できません。",
    "The {invested} that it takes are paid back at the earliest after {months} months.": (
        "必要な投資額{invested}の回収は、早くて{months}か月後です。"
    ),
    "The {invested} that it takes are paid back after {months} months.": (
        "必要な投資額{invested}は{months}か月で回収できます。"
    ),
    # what the trial proves
    "What this trial can prove": "この試験から言えること",
    "Nothing was said about it.": "記録がありません。",
    "Low rank without force": "フォースなしの低ランク",
    "Force and low rank": "フォースと低ランク",
    "Force towards the plan and low rank": "計画に向けたフォースと低ランク",
    "the interval excludes no difference": "区間は「差なし」を含みません",
    "the interval includes no difference": "区間は「差なし」を含みます",
    "{name} against dense: on {samples} final samples the difference is known to ±{half}, and {seen}.": (
        "{name}と元のネットワーク：最終評価用サンプル{samples}件で差は±{half}の精度で分かり、{seen}。"
    ),
    "{name} against dense: the metric has no value per sample, so how sure the difference is cannot be told.": (
        "{name}と元のネットワーク：指標にサンプルごとの値がないため、差の確かさは分かりません。"
    ),
    "It cannot prove that at most {margin} are lost: that takes about {needed} final samples "
    "with as many disagreements in proportion.": (
        "低下が{margin}以内であることは証明できません。不一致の割合が同じなら、最終評価用サンプルが約{needed}件"
        "必要です。"
    ),
    "One seed was trained: how much the result moves from seed to seed is not known.": (
        "シードは1つだけなので、シードによる結果のばらつきは分かりません。"
    ),
}

REASONS = (  # why a layer was left alone: (pattern of the English text, Japanese); others stay in English
    (r"excluded", "対象から除外"),
    (r"this arm is not cut", "この試験群は圧縮しない"),
    (
        r"break-even: no rank that is allowed would save multiply-accumulates",
        "どのランクでも積和演算量が減らないため",
    ),
    (r"no rank pays: the layer costs less than its split", "分解後の方が費用が大きいため"),
    (r"ordered past break-even: saves no (?:MACs|time)", "指定による分解（節約にはならない）"),
    (r"(\w+) is not among the types asked for \((.*)\)", "{0}は対象の種類（{1}）ではない"),
    (
        r"its weight is tied to another module's, and a split would untie it",
        "重みが他の層と共有されているため",
    ),
)
